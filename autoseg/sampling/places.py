"""Places of training patches: drawn by case, class and voxel, from (seed, iteration, sample) only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Generator

from autoseg.cases.entry import CacheEntry
from autoseg.cases.store import CaseSource, CaseStore
from autoseg.core.arrays import Shape3
from autoseg.core.errors import ConfigError
from autoseg.dataset.labels import Labels
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.rejection import Rejection

PLACES, INTENSITIES = 0, 1
"""Keys of separate streams of random numbers below one seed."""


@dataclass(frozen=True, slots=True)
class CaseContent:
    """Summary of a case for sampling, without its voxels."""

    source: CaseSource
    shape: Shape3
    """Shape (z, y, x) in voxels."""
    counts: Mapping[int, int]
    """Informative code -> number of voxels; only codes that occur."""
    head_codes: tuple[tuple[int, ...], ...]
    """For each head the codes of this case for which it is certainly positive; () for background heads."""
    is_dense: bool
    """Whether every voxel is informative, but for context, and at least half of them are annotated as one class."""
    code_groups: tuple[tuple[int, ...], ...]
    """The codes of ``counts``, grouped by annotated set."""

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.source.name

    @classmethod
    def from_entry(cls, source: CaseSource, entry: CacheEntry, labels: Labels) -> CaseContent:
        """Return the summary of a cached case. Only the annotation counts, not the classes that promises leave."""
        table = entry.table
        informative, single = table.informative, table.single
        positive, _ = table.head_states(labels.regions)
        counts = {code: entry.code_counts[code] for code in entry.locations if entry.code_counts.get(code, 0) > 0}
        counts = {code: count for code, count in counts.items() if informative[code]}
        groups: dict[bytes, list[int]] = {}
        for code in counts:
            groups.setdefault(table.drawn[code].tobytes(), []).append(code)
        head_codes = tuple(
            tuple(code for code in counts if positive[code, head]) if head in labels.foreground_heads else ()
            for head in range(labels.n_heads)
        )
        n_voxels = entry.record.own_box.n_voxels
        n_certain = sum(count for code, count in counts.items() if single[code])
        is_dense = sum(counts.values()) >= n_voxels and 2 * n_certain >= n_voxels
        code_groups = tuple(map(tuple, groups.values()))
        return cls(source, entry.record.shape, counts, head_codes, is_dense, code_groups)


@dataclass(frozen=True, slots=True)
class Aim:
    """Case of a patch and, unless the patch may lie anywhere, a code that must occur in it."""

    case: CaseContent
    code: int | None
    """Code that must occur in the patch; None if it may lie anywhere in the case (or around a smaller case)."""
    is_context: bool = False
    """Whether the patch is a context patch, which may lie anywhere in a sparse case, annotated or not."""
    head: int | None = None
    """Index of the foreground head that the patch was forced for; None if it was not forced."""


class Sampler:
    """Random choice of case and code for every sample of every iteration.

    The rules, in order: (a) cases are drawn by priority among those with an informative voxel. (b) A sample is forced
    with probability ``forced_fraction``: a foreground head is drawn among those that occur in the data set, then a case
    that has it (by priority), then a voxel. (c) Otherwise a patch of a dense case lies anywhere; one of a sparse case
    lies around an informative voxel, whose label set is drawn uniformly among the annotated sets of the case (so that
    the set with most voxels does not dominate), or, with probability ``context_fraction``, anywhere. (d) If
    ``rejection`` (None if off) rejects a place, only the place is drawn again, not case or code: the balance of (a) to
    (c) stays.

    A case for which only absent classes are known is sparse, has no head, and gives patches around its voxels.

    Source: nnU-Net ``dataloading/data_loader.py``. Differs in (b): nnU-Net forces the last third of each batch and
    balances classes within a case, so that a class of few cases is rare; in (c) nnU-Net draws uniformly over voxels.
    """

    def __init__(self, cases: Sequence[CaseContent], config: SamplingConfig) -> None:
        self.config = config
        self.cases = tuple(case for case in cases if case.counts and case.source.priority > 0)
        if not self.cases:
            raise ConfigError(
                f"sampling: found no annotated voxel in {len(cases)} cases (of priority above 0), expected at least "
                "one. Check the annotation with autoseg_plan_and_preprocess --check-only."
            )
        self._weights = _normalised([case.source.priority for case in self.cases])
        self.rejection = Rejection(config, len(self.cases)) if config.rejects else None
        n_heads = len(self.cases[0].head_codes)
        holders = [[case for case in self.cases if case.head_codes[head]] for head in range(n_heads)]
        self._heads = [
            (head, of_head, _normalised([case.source.priority for case in of_head]))
            for head, of_head in enumerate(holders)
            if of_head
        ]

    @property
    def heads(self) -> tuple[int, ...]:
        """Foreground heads that occur in the cases."""
        return tuple(head for head, _, _ in self._heads)

    def draw(self, rng: np.random.Generator) -> Aim:
        """Draw a case and the code that the patch must hold, by the rules of the class."""
        if rng.random() < self.config.forced_fraction and self._heads:
            head, cases, weights = self._heads[rng.integers(len(self._heads))]
            case = cases[rng.choice(len(cases), p=weights)]
            codes = case.head_codes[head]
            share = _normalised([case.counts[code] for code in codes])
            return Aim(case, codes[rng.choice(len(codes), p=share)], head=head)
        case = self.cases[rng.choice(len(self.cases), p=self._weights)]
        if case.is_dense:
            return Aim(case, None)
        if rng.random() < self.config.context_fraction:
            return Aim(case, None, is_context=True)
        codes = case.code_groups[rng.integers(len(case.code_groups))]
        if len(codes) == 1:
            return Aim(case, codes[0])
        return Aim(case, codes[rng.choice(len(codes), p=_normalised([case.counts[code] for code in codes]))])


def sample_rng(seed: int, iteration: int, sample: int) -> np.random.Generator:
    """Return the generator of one sample: the same for any number of workers, and after resuming."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PLACES, iteration, sample)))


def intensity_generators(seed: int, iteration: int, samples: Iterable[int]) -> list[Generator]:
    """Return the CPU generators for ``augment_intensity`` of some samples of an iteration."""
    sequences = (np.random.SeedSequence(seed, spawn_key=(INTENSITIES, iteration, sample)) for sample in samples)
    return [
        Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))) for sequence in sequences
    ]


def draw_voxel(case: CaseStore, code: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw a voxel (z, y, x) uniformly among the stored locations of ``code``."""
    locations = case.locations_of(code)
    flat = int(locations[rng.integers(len(locations))])
    return tuple(int(index) for index in np.unravel_index(flat, case.entry.record.shape))


def box_around(voxel: Sequence[int], shape: Sequence[int], patch: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Return the first voxel of a patch with ``voxel`` at its centre, shifted so that the patch lies in the image.

    Along axes on which the image is smaller than the patch it is placed as in :func:`box_anywhere`. Source: nnU-Net
    ``get_bbox``, which shifts only at the low border (at the high one, up to half of a patch is outside the image).
    """
    return _shifted_inside([at - size // 2 for at, size in zip(voxel, patch, strict=True)], shape, patch, rng)


def box_within(
    start: Sequence[int], own: Sequence[int], shape: Sequence[int], patch: Sequence[int], rng: np.random.Generator
) -> list[int]:
    """Return the first voxel of a patch placed uniformly in the part of an image that is the case itself.

    Around a case that is smaller than the patch lies its context, if the image has any: the patch is shifted so that it
    lies in the image.

    Parameters
    ----------
    start, own
        First voxel and shape of that part.
    shape
        Shape of the image.
    """
    low = [first + offset for first, offset in zip(start, box_anywhere(own, patch, rng), strict=True)]
    return low if tuple(own) == tuple(shape) else _shifted_inside(low, shape, patch, rng)


def _shifted_inside(
    low: Sequence[int], shape: Sequence[int], patch: Sequence[int], rng: np.random.Generator
) -> list[int]:
    """Return the first voxel of a patch shifted so that it lies in the image; padded axes as :func:`box_anywhere`."""
    anywhere = box_anywhere(shape, patch, rng)
    return [
        min(max(first, 0), edge - size) if edge >= size else padded
        for first, padded, edge, size in zip(low, anywhere, shape, patch, strict=True)
    ]


def box_anywhere(shape: Sequence[int], patch: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Return the first voxel of a patch placed uniformly in the image.

    Along axes on which the image is smaller than the patch, the image is centred in the patch, and the first voxel is
    0 or negative. An odd voxel of padding goes to either side at random.
    """
    missing = np.maximum(np.asarray(patch) - np.asarray(shape), 0)
    lowest = -((missing + 1) // 2)
    highest = np.where(missing > 0, -(missing // 2), np.asarray(shape) - np.asarray(patch))
    low: list[int] = rng.integers(lowest, highest, endpoint=True).tolist()
    return low


def _normalised(weights: Sequence[float]) -> NDArray[np.float64]:
    """Return weights divided by their sum, (n,) float64."""
    array = np.asarray(weights, dtype=np.float64)
    return np.asarray(array / array.sum())
