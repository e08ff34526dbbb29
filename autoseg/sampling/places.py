"""Where training patches lie: drawn by case, class and voxel, from (seed, iteration, sample) alone."""

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
"""Separate streams of random numbers below one seed."""


@dataclass(frozen=True, slots=True)
class CaseContent:
    """What sampling needs to know of a case; small, and independent of its voxels."""

    source: CaseSource
    shape: Shape3
    """Voxels."""
    counts: Mapping[int, int]
    """Informative code -> number of voxels; codes with none are left out."""
    head_codes: tuple[tuple[int, ...], ...]
    """Per network head the codes of this case for which it is certainly positive; () for background heads."""
    is_dense: bool
    """Whether every voxel is informative, and at least half of them carry exactly one class."""
    code_groups: tuple[tuple[int, ...], ...]
    """The codes of ``counts``, those of the same drawn set together."""

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.source.name

    @classmethod
    def from_entry(cls, source: CaseSource, entry: CacheEntry, labels: Labels) -> CaseContent:
        """Summarise a cached case. Only the annotation counts, not what follows from promises."""
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
        n_voxels = int(np.prod(entry.record.shape))
        n_certain = sum(count for code, count in counts.items() if single[code])
        is_dense = sum(counts.values()) == n_voxels and 2 * n_certain >= n_voxels
        code_groups = tuple(map(tuple, groups.values()))
        return cls(source, entry.record.shape, counts, head_codes, is_dense, code_groups)


@dataclass(frozen=True, slots=True)
class Aim:
    """What a patch was drawn for: a case and, unless the patch may lie anywhere, a code that must be in it."""

    case: CaseContent
    code: int | None
    is_context: bool = False
    """Whether the patch shall lie anywhere in a sparse case, annotated or not."""
    head: int | None = None
    """The foreground head whose turn it was; None where none was forced."""


class Sampler:
    """Draws the place of every sample of every iteration.

    The rules, in order: (a) cases are drawn by priority among those with an informative voxel. (b) A sample is forced
    with probability ``forced_fraction``: a foreground head is drawn among those that occur in the data set, then a case
    that has it (by priority), then a voxel. (c) Otherwise a densely labelled case gives a box anywhere; a sparse one a
    box around an informative voxel, its label set drawn uniformly among the sets drawn in the case (so that the most
    voluminous annotation does not dominate), or with ``context_fraction`` a box anywhere. (d) ``rejection`` (None if
    off) has the place, never the case or the code, drawn again: the balance of (a) to (c) stays.

    A case of which is only known what it does not hold is sparse, has no head, and gives boxes around its voxels.

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
    """Return the random numbers of one sample: the same for any number of workers, and after resuming."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PLACES, iteration, sample)))


def intensity_generators(seed: int, iteration: int, samples: Iterable[int]) -> list[Generator]:
    """Return the CPU generators for ``augment_intensity`` of some samples of an iteration, wherever these lie."""
    sequences = (np.random.SeedSequence(seed, spawn_key=(INTENSITIES, iteration, sample)) for sample in samples)
    return [
        Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))) for sequence in sequences
    ]


def draw_voxel(case: CaseStore, code: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw a voxel (z, y, x) with ``code`` uniformly."""
    locations = case.locations_of(code)
    flat = int(locations[rng.integers(len(locations))])
    return tuple(int(index) for index in np.unravel_index(flat, case.entry.record.shape))


def box_around(voxel: Sequence[int], shape: Sequence[int], patch: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Return the first voxel of a patch with ``voxel`` at its centre, moved into the image where it hangs out.

    Axes on which the image is smaller than the patch are placed as in :func:`box_anywhere`. Source: nnU-Net
    ``get_bbox``, which moves only at the low border (patches hang out at the high one by up to half their size).
    """
    low = [min(max(at - size // 2, 0), max(edge - size, 0)) for at, edge, size in zip(voxel, shape, patch, strict=True)]
    anywhere = box_anywhere(shape, patch, rng)
    return [
        place if edge >= size else padded for place, padded, edge, size in zip(low, anywhere, shape, patch, strict=True)
    ]


def box_anywhere(shape: Sequence[int], patch: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Return the first voxel of a patch placed uniformly in the image; on too short axes the image is centred in it.

    An odd remainder of padding goes to either side at random, so the first voxel is then negative.
    """
    missing = np.maximum(np.asarray(patch) - np.asarray(shape), 0)
    lowest = -((missing + 1) // 2)
    highest = np.where(missing > 0, -(missing // 2), np.asarray(shape) - np.asarray(patch))
    low: list[int] = rng.integers(lowest, highest, endpoint=True).tolist()
    return low


def _normalised(weights: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(weights, dtype=np.float64)
    return np.asarray(array / array.sum())
