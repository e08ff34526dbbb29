"""Time and dense Dice of a default prediction and of ``--fast``, reduction by reduction, in one run.

python scripts/benchmarks/fast_prediction.py -m MODEL -i IMAGES -r REFERENCES [--cases N] [--fold K] [--batch 1 4 16]

The cases are those that the fold held out from training, if the images hold them, otherwise all. Each case is predicted
by every variant in turn. Times include preprocessing and the decision, but no files: seconds of one processor on a CPU,
whatever else it does, and of the clock on other devices.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from autoseg.cases.case import Case
from autoseg.cli import common
from autoseg.core.arrays import LabelMap
from autoseg.core.errors import ConfigError
from autoseg.core.findings import counted
from autoseg.dataset.case_files import find_image_cases
from autoseg.dataset.labels import Labels
from autoseg.evaluation.matching import label_files
from autoseg.evaluation.metrics import count_heads, count_pairs
from autoseg.inference import Predictor
from autoseg.io.images import read_image, read_labels

DEFAULT, FAST = "default", "--fast"


@dataclass(frozen=True)
class Row:
    """Result of one variant, as means over cases."""

    variant: str
    seconds: float
    ratio: float
    """Seconds of the default over these."""
    dice: float
    """Mean over cases of the mean over foreground heads."""
    difference: float
    """To the Dice of the default."""


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(fast_prediction, lists={"--batch": r"\d+"})


def fast_prediction(
    model: Annotated[Path, typer.Option("-m", "--model", help="Model folder.", exists=True)],
    images: Annotated[Path, typer.Option("-i", "--images", help="Folder of images.", exists=True)],
    references: Annotated[Path, typer.Option("-r", "--references", help="Folder of dense label maps.", exists=True)],
    *,
    fold: Annotated[str, typer.Option(help="The one fold that predicts.")] = "0",
    cases: Annotated[int | None, typer.Option(min=1, help="At most so many cases.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Also --fast with so many windows per forward pass.")] = None,
    device: common.DeviceOption = "auto",
    json_: common.JsonOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Measure one model and print a table."""
    common.set_up_logging(quiet=quiet)
    default = Predictor.load(model, [fold], device)
    if default.device.type == "cpu":
        torch.set_num_threads(1)
    variants = predictors(default, Predictor.load(model, [fold], device, fast=True), batch or ())
    files = held_out_files(model / f"fold_{fold}", images, default)
    chosen = dict(list(files.items())[:cases])
    maps = label_files(references, default.model.dataset.file_ending)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    scores: dict[str, list[float]] = {name: [] for name in variants}
    with common.progress("cases", quiet=quiet) as report:
        for number, (name, channels) in enumerate(chosen.items(), 1):
            case = Case(name, *read_image(channels))
            for variant, predictor in variants.items():
                start = now(predictor.device)
                label_map = predictor.predict_case(case)
                seconds[variant].append(now(predictor.device) - start)
                scores[variant].append(dice(maps[name], label_map, default.model.dataset.labels))
            report(number, len(chosen), name)
    rows = table_rows(seconds, scores)
    if json_:
        common.print_json(
            {"cases": [*chosen], "precision": str(default.autocast_dtype), "rows": list(map(asdict, rows))}
        )
    else:
        print("\n".join(table(f"{default.model.configuration.name}, {counted(len(chosen), 'case')}", rows)))


def predictors(default: Predictor, fast: Predictor, batch_sizes: Sequence[int]) -> dict[str, Predictor]:
    """Return the variants by name: the reductions one after the other, then the numbers of windows per forward pass."""
    unmirrored = replace(default, mirror=False)
    reductions = {
        DEFAULT: default,
        "no mirrored copies": unmirrored,
        "and wide steps": replace(unmirrored, step=fast.step),
        FAST: fast,
    }
    return reductions | {f"{FAST}, batch of {size}": replace(fast, batch_size=size) for size in batch_sizes}


def held_out_files(fold: Path, images: Path, predictor: Predictor) -> dict[str, tuple[Path, ...]]:
    """Return case -> channel files of the cases of a folder that a fold held out; of all cases if none of those."""
    dataset = predictor.model.dataset
    files, _ = find_image_cases(images, dataset.file_ending, len(dataset.channels))
    if not files:
        raise ConfigError(f"{images}: found no case, expected <case>_0000{dataset.file_ending}. Check -i.")
    record = fold / "training.json"
    held_out = json.loads(record.read_text())["val_cases"] if record.is_file() else []
    return {name: paths for name, paths in files.items() if name in held_out} or dict(files)


def now(device: torch.device) -> float:
    """Return the seconds by which a variant is timed, after all work of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def dice(reference: Path, label_map: LabelMap, labels: Labels) -> float:
    """Return the mean Dice over foreground heads of a label map (z, y, x); NaN if none occurs."""
    counts = count_heads(count_pairs(read_labels(reference)[0], label_map), labels)
    values = [counts[head].dice for head in labels.foreground_heads]
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else float("nan")


def table_rows(seconds: Mapping[str, Sequence[float]], scores: Mapping[str, Sequence[float]]) -> list[Row]:
    """Return one row for each variant, the default first."""
    rows: list[Row] = []
    for variant, times in seconds.items():
        mean, score = float(np.mean(times)), float(np.nanmean(scores[variant]))
        first = rows[0] if rows else Row(variant, mean, 1.0, score, 0.0)
        rows.append(Row(variant, mean, first.seconds / mean, score, score - first.dice))
    return rows


def table(heading: str, rows: Sequence[Row]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [f"| {heading} | s per case | ratio | Dice | difference |", "|---|---:|---:|---:|---:|"]
    return lines + [
        f"| {row.variant} | {row.seconds:.3g} | {row.ratio:.2f} | {row.dice:.4f} | {row.difference:+.4f} |"
        for row in rows
    ]


if __name__ == "__main__":
    main()
