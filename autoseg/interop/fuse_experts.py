"""One label file for each image from the masks of several experts, with an account of how well they agree."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.annotation.agreement import dice_between_experts, dice_with_fusion, foreground_mean
from autoseg.annotation.fusion import Fusion, FusionMethod, fuse
from autoseg.annotation.staple import Float64Array
from autoseg.core.errors import AutosegError, ConfigError, DatasetError, Fault
from autoseg.core.parallel import map_unordered
from autoseg.core.progress import Progress, silent
from autoseg.evaluation.instances import match_instances
from autoseg.interop.expert_masks import MaskClasses, MaskSet, votes_of
from autoseg.interop.expert_tables import Agreement
from autoseg.io.images import read_header, read_image, read_labels, write_labels
from autoseg.io.png import write_png
from autoseg.report.expert_picture import draw_experts

EXPERTS_CSV, MEAN_CSV, AGREEMENT_CSV, REPORT = "experts.csv", "experts_mean.csv", "agreement.csv", "experts.json"
IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """How masks are fused."""

    classes: MaskClasses
    method: FusionMethod = "staple"
    undecided: str = IGNORE
    """``ignore``, or the name of the class of voxels that the experts do not decide."""

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` if ``undecided`` is neither ``ignore`` nor a class."""
        if self.undecided != IGNORE and self.undecided not in self.classes.names:
            expected = ", ".join([IGNORE, *self.classes.names])
            raise ConfigError(f"--undecided {self.undecided}: found no class of this name, expected one of {expected}.")

    @property
    def undecided_class(self) -> int | None:
        """Index of the class of undecided voxels; None if they are unknown."""
        return None if self.undecided == IGNORE else self.classes.names.index(self.undecided)

    def fuse(self, masks: MaskSet) -> Fusion:
        """Return the fused masks of one image."""
        votes = votes_of(masks, self.classes)
        return fuse(votes, len(self.classes.names), self.method, undecided=self.undecided_class)


@dataclass(frozen=True, slots=True)
class FileValues:
    """File values of fused masks: a class has its index, sets of several classes follow, and then what is unknown."""

    n_classes: int
    """K."""
    sets: tuple[frozenset[int], ...]
    """Sets of two classes or more that occur and are not all classes; they have the values K, K + 1, ..."""

    @property
    def unknown(self) -> int:
        """Value of voxels that may be any class."""
        return self.n_classes + len(self.sets)

    def of_codes(self, fusion: Fusion) -> NDArray[np.uint16]:
        """Return (N,) the file value of each code of a fusion."""
        rows = [frozenset(np.flatnonzero(row).tolist()) for row in fusion.label_sets[self.n_classes + 1 :]]
        known = {members: self.n_classes + number for number, members in enumerate(self.sets)}
        return np.array([*range(self.n_classes), self.unknown, *(known[members] for members in rows)], dtype=np.uint16)


@dataclass(frozen=True, slots=True)
class FusedFiles:
    """Files of one image whose masks are fused."""

    case: str
    grid: Path
    """File that gives shape and geometry: the image, otherwise a mask."""
    label: Path
    """Label file to write."""
    picture: Path | None = None
    """Picture to draw; None draws none."""
    image: Path | None = None
    """Image to show in the picture."""


def file_values(
    sets: Sequence[MaskSet], settings: FusionSettings, *, workers: int = 1, progress: Progress = silent
) -> FileValues:
    """Return the file values of fused masks, equal for all images.

    Only ``sets`` leaves voxels with several classes; for other methods no file is read.
    """
    n_classes = len(settings.classes.names)
    if settings.method != "sets":
        return FileValues(n_classes, ())
    members: set[frozenset[int]] = set()
    for result in _mapped(partial(_sets_of, settings=settings), sets, workers, progress):
        members |= result
    return FileValues(n_classes, tuple(sorted(members, key=lambda group: (len(group), sorted(group)))))


def fuse_masks(
    sets: Sequence[MaskSet],
    settings: FusionSettings,
    values: FileValues,
    files: Mapping[str, FusedFiles],
    *,
    workers: int = 1,
    progress: Progress = silent,
) -> tuple[Agreement, ...]:
    """Write the fused masks of each image, and return the agreement of its experts, in the order of ``sets``.

    Parameters
    ----------
    sets
        Masks of each image.
    settings
        How they are fused.
    values
        File values of label sets.
    files
        Name of a mask -> files of its image.
    """
    write = partial(_fuse_one, settings=settings, values=values, files=files)
    return tuple(sorted(_mapped(write, sets, workers, progress), key=lambda agreement: agreement.name))


def _mapped(function: Any, sets: Sequence[MaskSet], workers: int, progress: Progress) -> Iterable[Any]:
    """Yield the results for all images; raise ``DatasetError`` with the faults of all that have one."""
    faults: list[Fault] = []
    for done, (index, result) in enumerate(map_unordered(function, sets, workers=workers), 1):
        if isinstance(result, DatasetError):
            faults.extend(result.faults)
        elif isinstance(result, AutosegError):
            raise result
        else:
            yield result
        progress(done, len(sets), sets[index].name)
    if faults:
        raise DatasetError(sorted(faults, key=lambda fault: fault.where))


def _sets_of(masks: MaskSet, *, settings: FusionSettings) -> set[frozenset[int]]:
    fusion = settings.fuse(masks)
    return {frozenset(np.flatnonzero(row).tolist()) for row in fusion.label_sets[fusion.undecided + 1 :]}


def _fuse_one(
    masks: MaskSet, *, settings: FusionSettings, values: FileValues, files: Mapping[str, FusedFiles]
) -> Agreement:
    fusion = settings.fuse(masks)
    target = files[masks.name]
    shape, geometry = read_header(target.grid)
    if shape[1:] != fusion.codes.shape:
        found = f"masks of shape {fusion.codes.shape} (z, y, x)"
        fix = "Export the masks on the grid of the image."
        raise DatasetError([Fault(masks.name, found, f"{shape[1:]}, as {target.grid.name}", fix)])
    write_labels(target.label, values.of_codes(fusion)[fusion.codes], geometry)
    if target.picture is not None:
        image = None if target.image is None else read_image([target.image])[0]
        named = (fusion.patterns.votes > 0).sum(axis=1).astype(np.uint8)[fusion.patterns.pattern_of]
        names, n_experts = settings.classes.names, len(masks.files)
        write_png(target.picture, draw_experts(image, named, fusion.codes, names, n_experts, title=masks.name))
    shares = fusion.patterns.counts / max(int(fusion.patterns.counts.sum()), 1)
    return Agreement(
        masks.name,
        target.case,
        tuple(masks.files),
        dice_with_fusion(fusion),
        fusion.sensitivity,
        fusion.specificity,
        foreground_mean(dice_between_experts(fusion.patterns)),
        float(shares[fusion.code_of < fusion.undecided].sum()),
        float(shares[fusion.code_of == fusion.undecided].sum()),
        _precision(masks, fusion, settings.classes) if settings.classes.are_instances else None,
        fusion.is_settled,
    )


def _precision(masks: MaskSet, fusion: Fusion, classes: MaskClasses) -> Float64Array:
    """Return (E, 2): average precision of each expert's instances against the components of the fused mask.

    Both have gaps between touching instances. Components include diagonal neighbours, as the gaps do.
    """
    connected = np.ones((3,) * fusion.codes.ndim, dtype=bool)
    fused, _ = ndimage.label(fusion.codes == 1, structure=connected)
    rows = []
    for path in masks.files.values():
        instances = read_labels(path)[0].astype(np.int64)
        decided = (fusion.codes < fusion.undecided) & (instances != classes.unlabelled)
        counts = match_instances(np.where(classes.votes(instances) == 1, instances, 0), fused, decided)
        scores = (counts.average_precision(), counts.mean_average_precision)
        rows.append([math.nan if score is None else score for score in scores])
    return np.array(rows)
