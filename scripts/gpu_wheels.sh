#!/usr/bin/env bash
# Collect, in a folder (first argument, otherwise .whl), the wheels that a machine with torch and the usual scientific
# packages lacks for autoseg, with the versions of the present environment. SimpleITK and imagecodecs, the largest, are
# left out: training and prediction from NIfTI do without. GPU_PYTHON is the version of Python there (otherwise 3.12).
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-$repository/.whl}
version=${GPU_PYTHON:-3.12}
python=${AUTOSEG_PYTHON:-python3}
limit_mib=64
mkdir -p "$folder"
rm -f "$folder"/*.whl
platforms=()
for name in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
    platforms+=(--platform "${name}_x86_64")
done
installed() { "$python" -c "from importlib.metadata import version; print(version('$1'))"; }
wanted=()
for package in pydantic pydantic-core annotated-types typing-inspection nibabel; do
    wanted+=("$package==$(installed "$package")")
done
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
    "${platforms[@]}" -d "$folder" "${wanted[@]}"
# acvl-utils is published as source only
"$python" -m pip wheel -q --no-deps -w "$folder" "acvl-utils==$(installed acvl-utils)"
used=$(du -sm "$folder" | cut -f1)
ls -s --block-size=1K "$folder"
if [ "$used" -ge "$limit_mib" ]; then
    echo "$folder holds $used MiB, more than the $limit_mib that can be carried" >&2
    exit 1
fi
echo "$folder: $used MiB"
