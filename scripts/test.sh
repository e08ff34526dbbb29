#!/usr/bin/env bash
# Make the environment and run everything that must hold: format, lint, types, tests.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" dev
cd "$repository"
ruff format --check .
ruff check .
mypy
pytest "$@"
