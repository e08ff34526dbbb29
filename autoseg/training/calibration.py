"""Calibration of a model folder: samples of each fold's validation, and the fit to those of all folds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from filelock import FileLock

from autoseg.cases.case import CaseRecord, Target
from autoseg.cases.label_codes import read_annotation
from autoseg.core.errors import AutosegError
from autoseg.core.findings import counted
from autoseg.core.workspace import ALL, FoldName
from autoseg.dataset.labels import Labels
from autoseg.inference.calibration import Calibration, Temperature
from autoseg.inference.calibration_sample import CaseSample, load_sample
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.out_of_fold import TRAINING_FILE, read_fold_cases
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.prepared import PreparedCase
from autoseg.inference.quality_section import quality_section
from autoseg.inference.temperature_fit import fit_temperature
from autoseg.inference.voxel_sampler import VoxelSampler, voxels_per_case
from autoseg.training.request import FoldRequest

log = logging.getLogger(__name__)

SAMPLES = Path("validation") / "calibration"
"""Folder of the samples of a fold, in its folder: one ``<case>.npz`` per case."""
_LOCK = ".calibration.lock"


def is_sampled(request: FoldRequest) -> bool:
    """Whether the validation of a fold is sampled: not of a regression, nor of folds that trained on every case."""
    return not request.dataset.labels.targets and FoldName.parse(request.fold).fold != ALL


@dataclass(frozen=True, slots=True)
class ValidationSamples:
    """Output of a validation: a sample of each case; see :mod:`autoseg.inference.outputs`."""

    request: FoldRequest
    name: ClassVar[str] = "calibration samples"

    def is_written(self, output: Path) -> bool:
        """Return False: they are written anew with every prediction."""
        return False

    def begin(self, output: Path, prepared: PreparedCase, predictor: PredictorGroup) -> CaseSampling:
        """Return what samples a case; of one without annotation, or whose annotation cannot be read, nothing."""
        request, record = self.request, prepared.record
        labels = request.dataset.labels
        path = request.folder / SAMPLES / f"{record.case}.npz"
        target = _annotation(request, record)
        if target is None:
            return CaseSampling(None, path, labels)
        n_voxels = voxels_per_case(len(request.val_cases), labels.n_heads)
        return CaseSampling(VoxelSampler(target, record, labels, n_voxels), path, labels)


@dataclass(frozen=True, slots=True)
class CaseSampling:
    """Observer that samples one case."""

    sampler: VoxelSampler | None
    """None samples nothing."""
    path: Path
    labels: Labels
    needs_members: ClassVar[bool] = False

    def __call__(self, slab: DecidedSlab) -> None:
        """Draw voxels of a slab."""
        if self.sampler is not None:
            self.sampler(slab)

    def write(self) -> None:
        """Write the sample, or remove an earlier one if nothing was sampled."""
        if self.sampler is None:
            self.path.unlink(missing_ok=True)
        else:
            self.sampler.sample().save(self.path, self.labels)

    def close(self) -> None:
        """Do nothing: it holds no file."""


def _annotation(request: FoldRequest, record: CaseRecord) -> Target | None:
    """Return the annotation of a validation case in the file's axes; None if it has none, or it cannot be read."""
    files = request.dataset.case(record.case)
    if files.label is None:
        return None
    try:
        shape = record.voxel_order.inverse.permuted(record.shape_before_crop)
        return read_annotation(files, request.dataset.labels, shape)
    except AutosegError as error:
        log.warning("fold %s: left out of the calibration: %s", request.fold, error)
        return None


def refit_calibration(model_folder: Path, labels: Labels, channels: Sequence[str]) -> Calibration:
    """Fit the calibration to samples and records of all folds, write it into the model folder, and return it.

    Samples of cases that the weights of their fold were trained on are left out, and so are files that cannot be read,
    with a warning. Folds that end at the same time wait for each other, so that the last one sees the samples of all.
    """
    with FileLock(model_folder / _LOCK):
        samples = list(_samples(model_folder, labels))
        temperature = fit_temperature(
            [sample for _, sample in samples],
            labels,
            folds=list(dict.fromkeys(fold for fold, _ in samples)),
            basis="dense" if labels.is_dense else "annotated voxels",
        )
        quality = quality_section(model_folder, labels, channels)
        calibration = Calibration(temperature=temperature, quality=quality)
        calibration.write(model_folder)
    log.info("%s", _line(temperature))
    if quality is not None:
        log.info("%s", quality)
    return calibration


def _samples(model_folder: Path, labels: Labels) -> Iterator[tuple[str, CaseSample]]:
    """Yield (fold, sample) of every case that a fold did not train on."""
    for fold in sorted(model_folder.glob("fold_*")):
        name = fold.name.removeprefix("fold_")
        if FoldName.parse(name).fold == ALL or not (fold / TRAINING_FILE).is_file() or not (fold / SAMPLES).is_dir():
            continue
        cases = read_fold_cases(fold)
        for case in sorted(cases.val - cases.seen_cases):
            path = fold / SAMPLES / f"{case}.npz"
            if not path.is_file():
                continue
            try:
                yield name, load_sample(path, labels)
            except AutosegError as error:
                log.warning("left out of the calibration: %s", error)


def _line(temperature: Temperature) -> str:
    """Return a line for the log: temperatures, and the calibration error before and after."""
    where = "" if temperature.basis == "dense" else ", on annotated voxels"
    on = f"{counted(temperature.n_cases, 'case')} of {counted(len(temperature.folds), 'fold')}{where}"
    if temperature.ece_before is None or temperature.ece_after is None:
        return f"calibration: nothing to fit temperatures to ({on})"
    before, after = temperature.ece_before, temperature.ece_after
    if all(head.reason for head in temperature.heads):
        return (
            f"calibration: temperatures stay 1, too few voxels or cases so far; calibration error {before:.4f} ({on})"
        )
    values = ", ".join(
        f"{head.name} {head.temperature:.2f}{' (not fitted)' if head.reason else ''}" for head in temperature.heads
    )
    return f"calibration: temperatures {values}; calibration error {before:.4f} -> {after:.4f} ({on})"
