#!/usr/bin/env bash
# Make the environment and run everything that must hold: format, lint, types, tests. Arguments go to pytest.
# --fast, as first argument, leaves out slow tests and those of the benchmarks: about a minute on two cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" dev
cd "$repository"
selection=()
if [ "${1:-}" = --fast ]; then
    shift
    selection=(-m "not slow" --ignore=tests/scripts)
fi
ruff format --check .
ruff check .
mypy
pytest ${selection[@]+"${selection[@]}"} "$@"
