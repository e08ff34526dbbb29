#!/usr/bin/env bash
# Make the environment and run everything that must hold: format, lint, types, tests. Arguments go to pytest.
# --fast, as first argument, leaves out slow tests and those of the scripts, and checks types while two processes run
# the tests: some three minutes on two free cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" dev
cd "$repository"
ruff format --check .
ruff check .
if [ "${1:-}" != --fast ]; then
    mypy
    exec pytest -o testpaths="tests scripts/benchmarks/tests" "$@"
fi
shift
mypy &
types=$!
status=0
OMP_NUM_THREADS=1 pytest -n 2 --dist worksteal -m "not slow" --ignore=tests/scripts "$@" || status=$?
wait "$types" || status=$?
exit "$status"
