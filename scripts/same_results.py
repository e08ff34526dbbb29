"""Train, predict and complete small data sets of every kind of annotation, and print a hash of each result.

Two commits give the same results if their hashes are equal: run this in both on one machine, with one output file
each, and compare them with ``--against``. For changes that must not change any result.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.core.geometry import Geometry
from autoseg.io.images import write_labels
from autoseg.nn.checkpoint import load_checkpoint
from autoseg.simulation.phantom import CHANNEL, CLASSES, IGNORE, Phantom, phantom_case

N_CASES = 6
REGIONS = {"labels": {"background": 0, "organs": [1, 2], "kidney": [2]}, "regions_class_order": [1, 2]}
PROTOCOL = {"classes_complete_in": "slice", "reach_mm": 45}
STYLES: dict[str, tuple[Callable[[int, Phantom], np.ndarray], dict[str, Any]]] = {
    "dense": (lambda number, case: case.truth, {}),
    "scribbles": (lambda number, case: case.scribbles, {"labels": {**CLASSES, "ignore": IGNORE}}),
    "promises": (
        lambda number, case: case.scribbles,
        {"labels": {**CLASSES, "ignore": IGNORE}, "annotation_protocol": PROTOCOL},
    ),
    "lazy": (
        lambda number, case: np.where(case.truth == 1 + number % 2, case.truth, 0).astype(np.uint8),
        {"cases": {f"case{number}": {"annotated": [("liver", "kidney")[number % 2]]} for number in range(N_CASES)}},
    ),
    "regions": (lambda number, case: case.truth, REGIONS),
}


def write_dataset(folder: Path, style: str) -> None:
    """Write ``N_CASES`` phantoms with the labels of ``style``."""
    annotate, extra = STYLES[style]
    for number in range(N_CASES):
        case = phantom_case(number)
        geometry = Geometry(spacing=case.spacing)
        image = np.clip(np.rint(case.image[0]), 0, 65535).astype(np.uint16)
        for sub, name, array in (("imagesTr", f"case{number}_0000", image), ("labelsTr", f"case{number}", None)):
            path = folder / sub / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_labels(path, annotate(number, case) if array is None else array, geometry)
    content = {
        "channel_names": {"0": CHANNEL},
        "labels": CLASSES,
        "numTraining": N_CASES,
        "file_ending": ".nii.gz",
        **extra,
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def results_of(style: str, configuration: str, iterations: int, root: Path) -> dict[str, str]:
    """Run the commands on one data set; return a hash of the cache, the weights and the predictions."""
    data = root / style / "raw" / f"Dataset001_{style}"
    if not data.exists():
        write_dataset(data, style)
    common = ["--root", str(root / style), "-q"]
    run("plan_and_preprocess", [str(data), "-c", configuration, "--planner", "small", *common])
    settings = ["--iterations", str(iterations), "--set", "precision=float32", "iterations_per_epoch=25"]
    run("train", [str(data), "0", "-c", configuration, "--device", "cpu", "-j", "1", *settings, *common])
    out = root / style / f"predictions_{configuration}"
    run("predict", ["-i", str(data / "imagesTr"), "-o", str(out), "-d", str(data), "-c", configuration, "-f", "0",
                    "--device", "cpu", *common])  # fmt: skip
    model = root / style / "results" / data.name / f"default__{configuration}" / "fold_0" / "checkpoint_final.pt"
    weights = load_checkpoint(model).weights
    cache = root / style / "preprocessed" / data.name / configuration
    return {
        "cache": hash_of(*(path.read_bytes() for path in sorted(cache.glob("*.npy")))),
        "weights": hash_of(*(weights[key].numpy().tobytes() for key in weights)),
        "predictions": hash_of(*(path.read_bytes() for path in sorted(out.glob("*.nii.gz")))),
    }


def run(command: str, arguments: list[str]) -> None:
    """Run one command of this checkout with one thread."""
    repository = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    subprocess.run([sys.executable, "-m", f"autoseg.cli.{command}", *arguments], check=True, env=environment)


def hash_of(*parts: bytes) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of all parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def main() -> int:
    """Print the hashes, and which of them differ from those of ``--against``: exit code 1 if any does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="JSON file of the hashes")
    parser.add_argument("--against", type=Path, help="JSON file of another commit")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES))
    parser.add_argument("--configurations", nargs="+", choices=("2d", "3d_fullres"), default=["2d", "3d_fullres"])
    arguments = parser.parse_args()
    other = json.loads(arguments.against.read_text()) if arguments.against else {}
    hashes: dict[str, dict[str, str]] = {}
    differing = 0
    with tempfile.TemporaryDirectory() as root:
        for style in arguments.styles:
            for configuration in arguments.configurations:
                name = f"{style} {configuration}"
                hashes[name] = results_of(style, configuration, arguments.iterations, Path(root))
                changed = [key for key, value in hashes[name].items() if other.get(name, {}).get(key, value) != value]
                differing += len(changed)
                print(f"{name}: {hashes[name]}" + (f" DIFFERS in {', '.join(changed)}" if changed else ""), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(hashes, indent=1))
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
