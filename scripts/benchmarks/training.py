#!/usr/bin/env python3
"""Speed of training on whatever device is there: iterations per second, and where the time of a step goes.

python scripts/benchmarks/training.py [--device D] [--configurations 2d 3d_fullres] [--size small] [--workers N]
    [--json FILE] [--nnunetv2-python ENV/bin/python]

The data are generated, networks, patches and batches those of the default planner (--size small: of the small one, for
a CPU). With --nnunetv2-python the step of nnU-Net (its network, loss, deep supervision, clipping and optimiser, under
autocast and compiled as ours) is measured on one batch that is always there: what its training would reach if data cost
nothing. On the CPU a second ratio is that of processor time, which other work on the machine does not change much.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_cases import MEDIAN_SHAPES, N_CLASSES, planned, write_cases
from training_steps import batches, build, split, throughput

from autoseg.core.plan import Configuration
from autoseg.nn.device import select_device

PLANNED_GB = 8.0


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--configurations", nargs="+", default=["2d", "3d_fullres"], choices=["2d", "3d_fullres"])
    parser.add_argument("--workers", type=int, default=3, help="processes that read batches")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=8)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None, help="default: on CUDA")
    parser.add_argument("--size", choices=list(MEDIAN_SHAPES), default="default", help="small: sizes for a CPU")
    parser.add_argument("--quick", action="store_const", const="quick", dest="size", help="tiny, to try the script")
    parser.add_argument("--no-split", action="store_true", help="iterations per second only")
    parser.add_argument("--nnunetv2-python", help="interpreter of an environment with nnU-Net v2")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("autoseg").setLevel(logging.INFO)
    device = select_device(options.device)
    rows = [measure(name, device, options) for name in options.configurations]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    report = {"device": name, "torch": torch.__version__, "workers": options.workers, "rows": rows}
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))
    print(f"\n{name}, torch {torch.__version__}, {options.workers} workers\n\n{table(rows)}")
    sys.exit(0 if all(row["is_right"] for row in rows) else 1)


def measure(name: str, device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one configuration."""
    configuration = planned(name, options.size)
    compiles = device.type == "cuda" if options.compile is None else options.compile
    row: dict[str, Any] = {
        "configuration": name, "patch": list(configuration.patch_size), "batch": configuration.batch_size,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        sources = write_cases(Path(folder), name, options.size)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        parts, chosen = build(configuration, device, compiles=compiles)
        n_steps = options.warmup + options.steps
        row |= chosen
        if device.type == "cuda":  # what the checks of type and compiler took is given back, and not counted
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        stream = batches(sources, configuration, device, options.workers, 0, n_steps)
        row |= throughput(parts, stream, options.warmup, options.steps)
        if device.type == "cuda":
            row |= {
                "allocated_gb": torch.cuda.max_memory_allocated(device) / 1e9,
                "reserved_gb": torch.cuda.max_memory_reserved(device) / 1e9,
                "planned_gb": PLANNED_GB,
            }
        if not options.no_split:
            stream = batches(sources, configuration, device, options.workers, n_steps, 2 * n_steps)
            split(parts, stream, min(2, n_steps))
            row["split_ms"] = split(parts, stream, max(1, options.steps // 2))
        row["is_right"] = is_right(row)
        if options.nnunetv2_python:
            row |= theirs(Path(folder), configuration, device, compiles, options)
    return row


def is_right(row: dict[str, Any]) -> bool:
    """Whether training does its work: all losses are finite, and they fall."""
    return bool(np.isfinite([row["first_loss"], row["last_loss"]]).all() and row["last_loss"] < row["first_loss"])


def theirs(
    folder: Path, configuration: Configuration, device: torch.device, compiles: bool, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the iterations per second of nnU-Net's step, and the ratio."""
    settings = {
        "patch": configuration.patch_size, "batch": configuration.batch_size, "classes": N_CLASSES,
        "topology": configuration.topology.model_dump(mode="json"), "device": str(device), "compile": compiles,
        "warmup": options.warmup, "steps": options.steps,
    }  # fmt: skip
    script = Path(__file__).with_name("training_theirs.py")
    command = [options.nnunetv2_python, str(script), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, cwd=folder)
    if done.returncode:
        return {"theirs_failed": (done.stderr.strip().splitlines() or ["no reason given"])[-1]}
    return {"theirs": json.loads(done.stdout.strip().splitlines()[-1])}


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table."""
    parts = ["data wait", "augment", "forward", "loss", "backward", "optimiser"]
    head = ["configuration", "it/s", "wait for data", *(f"{part}, ms" for part in parts), "memory, GB", "theirs, it/s"]
    lines = [f"| {' | '.join([*head, 'ratio', 'check'])} |", "|---" + "|---:" * (len(head)) + "|---|"]
    for row in rows:
        other = row.get("theirs", {}).get("iterations_per_s")
        times = row.get("split_ms", {})
        memory = f"{row['reserved_gb']:.2f} of {row['planned_gb']:.0f}" if "reserved_gb" in row else "-"
        edges = "x".join(map(str, row["patch"]))
        cells = [
            f"{row['configuration']} {row['batch']}x{edges}, {row['precision']}"
            + (", compiled" if row["compiled"] else ""),
            f"{row['iterations_per_s']:.2f}",
            f"{100 * row['data_wait_share']:.0f} %",
            *(f"{times[part]:.1f}" if part in times else "-" for part in parts),
            memory,
            "-" if other is None else f"{other:.2f}",
            "-" if other is None else ratio(row),
            f"loss {row['first_loss']:.2f} to {row['last_loss']:.2f}" + ("" if row["is_right"] else ": WRONG"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio(row: dict[str, Any]) -> str:
    """Return our iterations per second over theirs; on the CPU also their processor time of a step over ours."""
    of_time = f"{row['iterations_per_s'] / row['theirs']['iterations_per_s']:.2f}"
    if "reserved_gb" in row:
        return of_time
    return f"{of_time}; {row['theirs']['processor_s'] / row['processor_s']:.2f}"


if __name__ == "__main__":
    main()
