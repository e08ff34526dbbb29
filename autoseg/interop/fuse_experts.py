"""One label file for each image from the masks of several experts, with an account of how well they agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from autoseg.annotation.agreement import dice_between_experts, dice_with_fusion, foreground_mean
from autoseg.annotation.fusion import Fusion, FusionMethod, fuse_patterns
from autoseg.annotation.staple import Float64Array
from autoseg.annotation.votes import NO_VOTE
from autoseg.core.progress import Progress, silent
from autoseg.evaluation.instances import match_instances
from autoseg.interop.expert_tables import Agreement
from autoseg.interop.fused_values import FileValues, Meaning, meanings
from autoseg.interop.mask_votes import MaskVotes, mapped
from autoseg.io.images import holds_labels, read_header, read_image, write_labels
from autoseg.io.png import write_png
from autoseg.report.expert_picture import draw_experts

IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """How masks are fused."""

    names: tuple[str, ...]
    """(K,) of the classes, the first one background."""
    class_of: Mapping[int, int]
    """Value of a mask -> class index, or ``NO_VOTE``."""
    method: FusionMethod = "staple"
    undecided: str = IGNORE
    """``ignore``, or the name of the class of voxels that the experts do not decide."""
    soft: bool = False
    """Whether a voxel counts in training as much as its class is probable."""
    are_instances: bool = False
    """Whether masks hold numbers of instances."""

    def fuse(self, votes: MaskVotes) -> Fusion:
        """Return the fused masks of one image."""
        undecided = None if self.undecided == IGNORE else self.names.index(self.undecided)
        return fuse_patterns(votes.patterns(self.class_of, len(self.names)), self.method, undecided=undecided)


@dataclass(frozen=True, slots=True)
class FusedFiles:
    """Files of one image whose masks are fused."""

    case: str
    grid: Path
    """File that gives shape and geometry: the image, otherwise a mask."""
    label: Path
    """Label file to write; one with the same values is left as it is."""
    picture: Path | None = None
    """Picture to draw; None draws none."""
    image: Path | None = None
    """Image to show in the picture."""


def found_meanings(votes: Sequence[MaskVotes], settings: FusionSettings, *, workers: int = 1) -> set[Meaning]:
    """Return what voxels are besides decided for one class; empty for methods that decide, unless they are soft."""
    if settings.method != "sets" and not settings.soft:
        return set()
    return set().union(*mapped(partial(_meanings_of, settings=settings), votes, workers, silent))


def fuse_masks(
    votes: Sequence[MaskVotes],
    settings: FusionSettings,
    values: FileValues,
    files: Mapping[str, FusedFiles],
    *,
    workers: int = 1,
    progress: Progress = silent,
) -> tuple[Agreement, ...]:
    """Write the fused masks of each image, and return the agreement of its experts, sorted by name.

    Parameters
    ----------
    votes
        Masks of each image.
    settings
        How they are fused.
    values
        File values of the fused labels.
    files
        Name of a mask -> files of its image.
    """
    write = partial(_fuse_one, settings=settings, values=values, files=files)
    return tuple(sorted(mapped(write, votes, workers, progress), key=lambda agreement: agreement.name))


def _meanings_of(votes: MaskVotes, *, settings: FusionSettings) -> set[Meaning]:
    return {*meanings(settings.fuse(votes), soft=settings.soft)}


def _fuse_one(
    votes: MaskVotes, *, settings: FusionSettings, values: FileValues, files: Mapping[str, FusedFiles]
) -> Agreement:
    fusion = settings.fuse(votes)
    name, experts = votes.masks.name, tuple(votes.masks.files)
    target = files[name]
    labels = values.of_patterns(fusion, soft=settings.soft)[fusion.patterns.pattern_of]
    if not holds_labels(target.label, labels):
        write_labels(target.label, labels, read_header(target.grid)[1])
    if target.picture is not None:
        image = None if target.image is None else read_image([target.image])[0]
        named = (fusion.patterns.votes > 0).sum(axis=1).astype(np.uint8)[fusion.patterns.pattern_of]
        write_png(target.picture, draw_experts(image, named, fusion.codes, settings.names, len(experts), title=name))
    shares = fusion.patterns.counts / max(int(fusion.patterns.counts.sum()), 1)
    return Agreement(
        name,
        target.case,
        experts,
        dice_with_fusion(fusion),
        fusion.sensitivity,
        fusion.specificity,
        foreground_mean(dice_between_experts(fusion.patterns)),
        float(shares[fusion.code_of < fusion.undecided].sum()),
        float(shares[fusion.code_of == fusion.undecided].sum()),
        _precision(votes, fusion) if settings.are_instances else None,
        fusion.is_settled,
    )


def _precision(votes: MaskVotes, fusion: Fusion) -> Float64Array:
    """Return (E, 2): average precision of each expert's instances against the components of the fused mask.

    Both have gaps between touching instances. Components include diagonal neighbours, as the gaps do.
    """
    connected = np.ones((3,) * fusion.codes.ndim, dtype=bool)
    fused, _ = ndimage.label(fusion.codes == 1, structure=connected)
    is_decided = fusion.codes < fusion.undecided
    rows = []
    for expert, instances in enumerate(votes.instances()):
        has_vote = (fusion.patterns.votes[:, expert] != NO_VOTE)[fusion.patterns.pattern_of]
        counts = match_instances(instances, fused, is_decided & has_vote)
        scores = (counts.average_precision(), counts.mean_average_precision)
        rows.append([math.nan if score is None else score for score in scores])
    return np.array(rows)
