#!/usr/bin/env bash
# Make the virtual environment that quickstart.sh and test.sh share, with the tested versions. Sourced by both.
# AUTOSEG_VENV names another place; AUTOSEG_PYTHON another interpreter (3.11 or newer). The argument is "product", or
# "dev" to add what the tests need.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${AUTOSEG_VENV:-$repository/.venv}
python=${AUTOSEG_PYTHON:-python3}
extra=${1:-product}
versions=$(cat "$repository/constraints.txt" "$repository/pyproject.toml" | cksum | cut -d' ' -f1)
stamp=$venv/.autoseg-$extra-$versions

# Run a command; say so, and every 15 seconds that it is still running; show what it wrote only if it fails.
with_signs_of_life() {
    local what=$1 log pid begun=$SECONDS said=$SECONDS
    shift
    echo "  $what"
    log=$(mktemp)
    "$@" >"$log" 2>&1 &
    pid=$!
    trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        if [ $((SECONDS - said)) -ge 15 ]; then
            said=$SECONDS
            echo "  $what: $((SECONDS - begun)) s"
        fi
    done
    trap - INT TERM
    if ! wait "$pid"; then
        cat "$log" >&2
        echo "$what failed; the output is above." >&2
        rm -f "$log"
        exit 1
    fi
    rm -f "$log"
}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "autoseg needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Set AUTOSEG_PYTHON." >&2
    exit 2
fi
if [ ! -e "$stamp" ]; then
    echo "making the environment in $venv (once; one to five minutes)"
    began=$SECONDS
    if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        with_signs_of_life "making an empty environment" "$python" -m venv "$venv"
    fi
    if ! "$venv/bin/python" -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (21, 3))'; then
        with_signs_of_life "renewing pip" "$venv/bin/python" -m pip install --upgrade pip
    fi
    wanted=$repository
    if [ "$extra" = dev ]; then wanted="$repository[dev]"; fi
    # torch by its exact version: a range would fetch the newest build, with gigabytes of GPU libraries.
    # Not compiled: of the files of torch and others only a part is ever imported, and that part is compiled below.
    with_signs_of_life "installing torch and the other packages" "$venv/bin/python" -m pip install --no-compile \
        --constraint "$repository/constraints.txt" "$(grep '^torch==' "$repository/constraints.txt")" --editable "$wanted"
    with_signs_of_life "importing it for the first time" env PYTHONDONTWRITEBYTECODE= \
        "$venv/bin/python" -c 'import autoseg.training.validation, autoseg.report.overlay, matplotlib.pyplot, torch._dynamo'
    rm -f "$venv"/.autoseg-*
    touch "$venv/.autoseg-product-$versions" "$stamp"
    echo "the environment is ready after $((SECONDS - began)) s"
fi
export PATH="$venv/bin:$PATH"
