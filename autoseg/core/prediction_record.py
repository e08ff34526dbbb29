"""Record beside predictions: with which command, versions and model each case was predicted, and from which images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import SoftFileLock, Timeout
from pydantic import BaseModel, ConfigDict

from autoseg.core.atomic import write_json
from autoseg.core.environment import Environment, command_line

PREDICTION_FILE = "prediction.json"
LOCK_S = 5.0
"""Longest time that a process waits for another one to write the file."""


class PredictionRun(BaseModel):
    """One run of a prediction."""

    model_config = ConfigDict(frozen=True)

    command: str
    """Command line of the process."""
    directory: str
    """Folder in which it ran."""
    environment: Environment
    model: str
    """Data set, configuration and folds, and of objects how they are parted."""
    images: dict[str, tuple[str, ...]]
    """Case -> its image files, in channel order. Cases that a later run predicted again are not among them."""
    part: str = ""
    """Part of a volume that the run predicts, such as 1/4; "" for whole cases."""
    missing: dict[str, tuple[str, ...]] = {}
    """Volume -> boxes (z, y, x) of voxels that are predicted as background because their tiles are missing."""


class PredictionRecord(BaseModel):
    """Content of ``prediction.json``."""

    model_config = ConfigDict(frozen=True)

    runs: tuple[PredictionRun, ...] = ()
    """In the order in which they began; runs all of whose cases were predicted again are left out."""

    @property
    def images(self) -> dict[str, tuple[str, ...]]:
        """Case -> its image files."""
        return {case: files for run in self.runs for case, files in run.images.items()}

    def unlike(self, model: str, images: Mapping[str, Sequence[Path]]) -> tuple[str, ...]:
        """Return those of the cases ``images`` that another model predicted, or from other image files.

        Cases of which nothing is recorded are not among them.
        """
        known = {case: (run.model, files) for run in self.runs for case, files in run.images.items()}
        wanted = {case: (model, tuple(str(path.absolute()) for path in files)) for case, files in images.items()}
        return tuple(case for case, origin in wanted.items() if known.get(case, origin) != origin)

    def with_run(self, run: PredictionRun) -> PredictionRecord:
        """Return the record after a run that predicts the cases ``run.images``; equal without any.

        Runs that predicted other parts of the same volume stay.
        """
        kept = [
            item
            if run.part and item.part not in ("", run.part)
            else item.model_copy(
                update={"images": {case: item.images[case] for case in item.images.keys() - run.images}}
            )
            for item in self.runs
        ]
        return PredictionRecord(runs=tuple(item for item in (*kept, run) if item.images))


def read_prediction_record(folder: Path) -> PredictionRecord:
    """Return the record of a folder of predictions; empty if there is none, or none that this version can read."""
    try:
        return PredictionRecord.model_validate_json((folder / PREDICTION_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return PredictionRecord()


def record_prediction(
    folder: Path,
    model: str,
    device: str,
    images: Mapping[str, Sequence[Path]],
    *,
    part: str = "",
    missing: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Add this process's run to the record of ``folder``; other processes may do so at the same time.

    Parameters
    ----------
    folder
        Folder of the predictions.
    model
        Data set, configuration and folds, and of objects how they are parted.
    device
        Name of what computes, "" for the processor.
    images
        Case -> its image files, of the cases that this run predicts. Without any nothing is written.
    part, missing
        As the fields of :class:`PredictionRun`.
    """
    if not images:
        return
    run = PredictionRun(
        command=command_line(),
        directory=str(Path.cwd()),
        environment=Environment.of(device),
        model=model,
        images={case: tuple(str(path.absolute()) for path in files) for case, files in images.items()},
        part=part,
        missing={case: tuple(boxes) for case, boxes in (missing or {}).items()},
    )
    path = folder / f".{PREDICTION_FILE}.lock"
    lock = SoftFileLock(path)
    try:
        lock.acquire(timeout=LOCK_S)
    except Timeout:  # left behind by a process that was killed
        path.unlink(missing_ok=True)
    try:
        write_json(folder / PREDICTION_FILE, read_prediction_record(folder).with_run(run).model_dump(mode="json"))
    finally:
        lock.release()
