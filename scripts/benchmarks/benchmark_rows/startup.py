"""Seconds until ``--help`` and until the message of a mistake."""

from __future__ import annotations

import json
from pathlib import Path

from benchmark_rows.row import Finding, Row, Settings, Variant

SECONDS = 0.5


def nothing(folder: Path, settings: Settings) -> None:
    """Make no inputs."""


def check_answers(folder: Path, settings: Settings) -> Finding:
    """Exit code and first words of what was printed are those of a command that understood."""
    code, text = json.loads((folder / "ours.json").read_text())
    return Finding(f"exit code {code}", code == settings["code"] and settings["says"] in text)


def _help(command: str, theirs: str | None = None) -> Variant:
    settings = {"ours": [f"autoseg_{command}", "--help"], "code": 0, "says": "Usage"}
    if theirs is not None:
        settings["theirs"] = [theirs, "--help"]
    return Variant(f"autoseg_{command} --help", settings, max_seconds=SECONDS)


HELP = Row(
    title="--help, beside nnU-Net's command for the same",
    variants=(
        _help("plan_and_preprocess", "nnUNetv2_plan_and_preprocess"),
        _help("train", "nnUNetv2_train"),
        _help("predict", "nnUNetv2_predict"),
        _help("evaluate_folder", "nnUNetv2_evaluate_folder"),
    ),
    make=nothing,
    ours="startup_ours:answer",
    theirs="startup_theirs:answer",
    check=check_answers,
    limit="Python itself 0.02 s, typer and rich 0.12 s",
)
OTHERS = Row(
    title="--help of the other commands, and mistakes",
    variants=(
        *map(_help, ("suggest", "complete", "simulate_annotation", "merge_datasets", "convert_elektronn")),
        Variant(
            "an option that is not there",
            {"ours": ["autoseg_train", "4", "0", "--iteration", "5"], "code": 2, "says": "--iterations"},
            max_seconds=SECONDS,
        ),
        Variant(
            "a data set that is not there",
            {"ours": ["autoseg_train", "NoSuchDataset", "0"], "code": 2, "says": "NoSuchDataset"},
            max_seconds=SECONDS,
        ),
    ),
    make=nothing,
    ours="startup_ours:answer",
    check=check_answers,
    limit="as above; numpy 0.13 s and pydantic 0.05 s where a dataset.json is looked for",
)
