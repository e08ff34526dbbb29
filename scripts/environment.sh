#!/usr/bin/env bash
# Make the virtual environment that quickstart.sh and test.sh share, with the tested versions. Sourced by both.
# AUTOSEG_VENV names another place; AUTOSEG_PYTHON another interpreter (3.10 or newer).
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${AUTOSEG_VENV:-$repository/.venv}
python=${AUTOSEG_PYTHON:-python3}
stamp=$venv/.autoseg-$(cat "$repository/constraints.txt" "$repository/pyproject.toml" | cksum | cut -d' ' -f1)

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "autoseg needs Python 3.10 or newer; $python is $("$python" --version 2>&1). Set AUTOSEG_PYTHON." >&2
    exit 2
fi
if [ ! -e "$stamp" ]; then
    echo "making the environment in $venv (once; a few minutes)"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --upgrade pip
    # torch alone and first: a range would fetch the newest build, with gigabytes of GPU libraries
    "$venv/bin/python" -m pip install --quiet "$(grep '^torch==' "$repository/constraints.txt")"
    constraint=(--constraint "$repository/constraints.txt")
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "the tested versions need Python 3.11; taking the newest that Python 3.10 has"
        constraint=()
    fi
    PYTHONWARNINGS=ignore "$venv/bin/python" -m pip install --quiet "${constraint[@]}" --editable "$repository[dev]"
    rm -f "$venv"/.autoseg-*
    touch "$stamp"
fi
export PATH="$venv/bin:$PATH"
