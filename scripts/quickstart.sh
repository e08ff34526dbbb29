#!/usr/bin/env bash
# Make the environment, then plan, train, predict and evaluate on a generated data set with scribbles only.
# Arguments go to autoseg.cli.quickstart: --root FOLDER, --iterations N.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" product
python -m autoseg.cli.quickstart "$@"
