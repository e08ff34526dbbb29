"""Training on one chunk of the data at a time: for a number of iterations all patches lie in it, then in another one.

Patches from anywhere in a volume larger than the memory are read from the disk one by one. Those of one chunk stay in
the memory that the system or the store keeps of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoseg.cases.store import CaseSource, CaseStore
from autoseg.core.arrays import Shape3
from autoseg.core.boxes import Box
from autoseg.dataset.labels import Labels
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.places import CHUNKS, CaseContent, Sampler


@dataclass(frozen=True)
class Schedule:
    """The samplers of a run: which one draws the patches of an iteration follows from the seed and the iteration.

    A chunk is drawn for every ``iterations_per_chunk`` iterations, independently of the others: its case by priority,
    as without chunks, then the chunk in proportion to its annotated voxels, so that in the long run cases, and their
    annotated parts, are seen as often as without chunks. Within the chunk the rules of :class:`Sampler` hold for the
    classes that occur there.

    Source: PyTorch Connectomics ``DATA_CHUNK_NUM`` and ``DATA_CHUNK_ITER``. Differs in that chunks do not overlap,
    that they count by their annotation, not all alike, and that a resumed run goes on with the same chunk.
    """

    whole: Sampler
    """Sampler over all cases."""
    seed: int = 0
    chunks: tuple[CaseContent, ...] = ()
    """Parts of cases with annotated voxels; (): patches lie anywhere in every iteration."""
    shares: tuple[float, ...] = ()
    """Probability of each chunk."""

    def during(self, iteration: int) -> Sampler:
        """Return the sampler of an iteration."""
        if not self.chunks:
            return self.whole
        config = self.whole.config
        turn = iteration // config.iterations_per_chunk
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(CHUNKS, turn)))
        chunk = self.chunks[rng.choice(len(self.chunks), p=self.shares)]
        return Sampler((chunk,), config, self.whole.rejection)


def make_schedule(cases: Sequence[CaseSource], config: SamplingConfig, labels: Labels, seed: int) -> Schedule:
    """Return the samplers of a run; raises as :class:`Sampler`, and as opening a case."""
    contents: list[CaseContent] = []
    parts: list[CaseContent] = []
    for source in cases:
        contents.append(CaseContent.from_entry(source, source.entry, labels))
        if config.iterations_per_chunk and source.priority > 0:
            parts += chunks_of(contents[-1], source.open(), config.chunks_per_case)
    whole = Sampler(contents, config)
    total = sum(case.source.priority for case in whole.cases)
    annotated: Counter[str] = Counter()
    for part in parts:
        annotated[part.name] += part.n_annotated
    shares = [part.source.priority / total * part.n_annotated / annotated[part.name] for part in parts]
    return Schedule(whole, seed, tuple(parts), tuple(shares))


def chunks_of(content: CaseContent, case: CaseStore, grid: Shape3) -> Iterator[CaseContent]:
    """Yield the chunks of a case with annotated voxels: boxes of equal edges, but for a voxel, on a grid (z, y, x).

    They divide the case itself, without the context around it.

    The numbers of voxels of each code are those of the case, divided as its stored locations are. An axis with fewer
    voxels than the grid has one chunk per voxel.
    """
    own, shape = case.entry.record.own_box, content.shape
    sides = zip(grid, own.start, own.shape, strict=True)
    edges = [first + np.unique(np.arange(n + 1) * edge // n) for n, first, edge in sides]
    n_chunks = tuple(len(of_axis) - 1 for of_axis in edges)
    found: dict[int, dict[int, int]] = {}
    for code, count in content.counts.items():
        locations = case.locations_of(code)
        places = np.unravel_index(locations, shape)
        inside = [np.searchsorted(of_axis, at, side="right") - 1 for of_axis, at in zip(edges, places, strict=True)]
        chunks, numbers = np.unique(np.ravel_multi_index(inside, n_chunks), return_counts=True)
        for chunk, number in zip(chunks.tolist(), numbers.tolist(), strict=True):
            found.setdefault(chunk, {})[code] = max(1, round(count * number / len(locations)))
    for chunk in sorted(found):
        at = np.unravel_index(chunk, n_chunks)
        low, high = ([int(of_axis[index + step]) for of_axis, index in zip(edges, at, strict=True)] for step in (0, 1))
        yield _within(content, Box((low[0], low[1], low[2]), (high[0], high[1], high[2])), found[chunk])


def _within(content: CaseContent, box: Box, counts: dict[int, int]) -> CaseContent:
    """Return the summary of the part of a case in a box, with its number of voxels of each code."""
    heads = tuple(tuple(code for code in codes if code in counts) for codes in content.head_codes)
    groups = (tuple(code for code in codes if code in counts) for codes in content.code_groups)
    return replace(
        content, box=box, counts=counts, head_codes=heads, code_groups=tuple(group for group in groups if group)
    )
