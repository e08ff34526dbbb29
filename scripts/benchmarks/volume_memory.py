#!/usr/bin/env python3
"""Peak memory and time of the commands on a volume that is far larger than memory.

python scripts/benchmarks/volume_memory.py --gb 40 [--folder DIR] [--iterations 50] [--check-only] [--json FILE]

The volume is made by scripts/make_tile_volume.py. Each command runs as a process of its own; its memory is the largest
sum, over it and its children, of what each process has at most (VmHWM), looked up ten times a second. Memory that
processes share is counted for each of them, so the sum is an upper limit.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent
GB = 1e9


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=40.0, help="size of the volume; voxels of one byte")
    parser.add_argument("--folder", type=Path, help="where data set and workspace are made; deleted without it")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--missing", type=int, default=3, help="tiles that are missing")
    parser.add_argument("--every", type=int, default=1, help="every how many sections one is labelled")
    parser.add_argument("--slab", type=int, nargs=3, default=(16, 1024, 1024), help="voxels (z, y, x) to predict")
    parser.add_argument("--check-only", action="store_true", help="check and plan, no more")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(options, options.folder or Path(temporary))
    print(f"\n| {options.gb:g} GB | s | of a core, s | peak memory, GB |\n|---|---:|---:|---:|")
    for row in rows:
        print(f"| {row['what']} | {row['seconds']:.0f} | {row['core_seconds']:.0f} | {row['peak_gb']:.2f} |")
    if options.json is not None:
        options.json.write_text(json.dumps({"gb": options.gb, "rows": rows}, indent=2) + "\n", encoding="utf-8")


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, float | str]]:
    """Make the volume and run the commands; return what each took."""
    dataset = folder / "raw" / "Dataset300_Tiles"
    making = ["-o", dataset, "--gb", options.gb, "--missing", options.missing, "--every", options.every]
    if not (dataset / "dataset.json").exists():
        subprocess.run([sys.executable, SCRIPTS / "make_tile_volume.py", *map(str, making)], check=True)
    planning = ["plan_and_preprocess", dataset, "--root", folder]
    training = ["train", dataset, "all", "--root", folder, "-c", "3d_fullres", "--overwrite", "--device", "cpu"]
    steps: dict[str, Sequence[object]] = {"check": [*planning, "--check-only"], "plan": ["plan", dataset, folder]}
    if not options.check_only:
        steps["preprocess 3d_fullres"] = [*planning, "--planner", "small", "-c", "3d_fullres"]
        steps[f"train {options.iterations} iterations"] = [*training, "--iterations", options.iterations]
        steps["predict a slab of {} x {} x {}".format(*options.slab)] = predicting(dataset, folder, options.slab)
    return [{"what": what, **run([str(part) for part in command])} for what, command in steps.items()]


def predicting(dataset: Path, folder: Path, slab: Sequence[int]) -> list[object]:
    """Return the command that predicts a slab from the middle section on, where tiles are missing."""
    first = json.loads((dataset / "image.json").read_text(encoding="utf-8"))["depth"] // 2
    box = f"{first}:{first + slab[0]}, 0:{slab[1]}, 0:{slab[2]}"
    model = folder / "results" / dataset.name / "default__3d_fullres"
    options = ["--device", "cpu", "--no-tta", "--overwrite"]
    return ["predict", "-i", f"{dataset / 'image.json'}[{box}]", "-o", folder / "predictions", "-m", model, *options]


def run(command: Sequence[str]) -> dict[str, float]:
    """Run a command of autoseg; return its seconds, those of processors, and its peak memory in GB."""
    name, *arguments = command
    code = f"import sys; from autoseg.cli.{name} import main; sys.argv[0] = 'autoseg_{name}'; main()"
    if name == "plan":
        code = "import sys, autoseg; autoseg.plan(sys.argv[1], root=sys.argv[2], planner='small')"
    print("$", f"autoseg_{name}", *arguments, flush=True)
    started, before = time.monotonic(), core_seconds()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(map(most_bytes, tree(process.pid))))
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"autoseg_{name} ended with {process.returncode}")
    seconds = time.monotonic() - started
    return {"seconds": seconds, "core_seconds": core_seconds() - before, "peak_gb": peak / GB}


def core_seconds() -> float:
    """Return the time that processors have worked for processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree(process: int) -> list[int]:
    """Return a process and all of its descendants; those that have ended meanwhile are left out."""
    found = [process]
    for number in found:
        for listing in Path(f"/proc/{number}/task").glob("*/children"):
            try:
                found += [int(child) for child in listing.read_text(encoding="ascii").split()]
            except OSError:
                continue
    return found


def most_bytes(process: int) -> int:
    """Return the most memory that a process has had, in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
