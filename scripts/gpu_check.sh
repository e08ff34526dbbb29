#!/usr/bin/env bash
# Check and measure autoseg on a bare machine with Python 3.11 or newer, torch and a GPU, without a network.
# What is missing there comes from a folder of wheels (GPU_WHEELS, otherwise .whl), made by gpu_wheels.sh.
# Arguments go to gpu_check.py; `--device cpu --quick` tries it where there is no GPU.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
wheels=${GPU_WHEELS:-$repository/.whl}
python=${AUTOSEG_PYTHON:-python3}
if compgen -G "$wheels/*.whl" >/dev/null; then
    site=$(mktemp -d)
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONUNBUFFERED=1
exec "$python" "$repository/scripts/gpu_check.py" "$@"
