"""Training on one chunk at a time: the same for any start and workers, balanced by annotation, off by default."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from autoseg.augmentation.recipes import nnunet_recipe
from autoseg.core.errors import ConfigError
from autoseg.sampling.chunks import chunks_of, make_schedule
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.loader import make_loader
from autoseg.sampling.places import CaseContent
from autoseg.training.config import resolve_config

PATCHES = pytest.mark.parametrize("patch", [(6, 6), (4, 6, 6)], ids=["2d", "3d"])
SETTINGS = [
    SamplingConfig(),
    SamplingConfig(context_fraction=0.7, forced_fraction=0.1),
    SamplingConfig(min_annotated=0.05, min_foreground_voxels=2, max_attempts=3),
]


def sparse(seed: int, shape=(8, 20, 24)) -> np.ndarray:
    """Codes 0, 1 and 2 at few voxels, most of them in one corner; the rest is unknown (3)."""
    rng = np.random.default_rng(seed)
    codes = np.full(shape, 3, np.uint8)
    corner = tuple(edge // 2 for edge in shape)
    for code, edges, number in ((0, shape, 20), (1, corner, 60), (2, corner, 9)):
        codes[tuple(rng.integers(edge, size=number) for edge in edges)] = code
    return codes


def dense(seed: int, shape=(8, 20, 24)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)


def chunked(config: SamplingConfig, iterations: int, grid: tuple[int, int, int] = (1, 1, 1)) -> SamplingConfig:
    return config.model_copy(update={"iterations_per_chunk": iterations, "chunks_per_case": grid})


@pytest.fixture
def load(make_labels, make_configuration):
    def load(cases, patch, config, *, recipe=False, **options):
        configuration = make_configuration(patch, 3)
        chosen = nnunet_recipe(configuration) if recipe else None
        options = {"labels": make_labels(), "start": 0, "stop": 8, "seed": 5} | options
        return list(make_loader([case.source for case in cases], configuration, config, chosen, **options))

    return load


def same(one, other) -> bool:
    return len(one) == len(other) and all(
        torch.equal(mine.images, theirs.images) and torch.equal(mine.codes, theirs.codes)
        and (mine.cases, mine.origins) == (theirs.cases, theirs.origins)
        for mine, theirs in zip(one, other, strict=True)
    )  # fmt: skip


@PATCHES
@pytest.mark.parametrize("draw", [sparse, dense])
@pytest.mark.parametrize("config", SETTINGS, ids=["default", "context", "rejection"])
def test_one_chunk_gives_the_patches_of_the_default_bit_for_bit(patch, draw, config, load, write):
    cases = [write("only", draw(0))]
    large = (32, 32) if len(patch) == 2 else (12, 32, 32)
    for size in (patch, large):
        usual = load(cases, size, config, recipe=True, stop=4)
        assert same(load(cases, size, chunked(config, 3), recipe=True, stop=4), usual)


@PATCHES
@pytest.mark.parametrize("draw", [sparse, dense])
def test_the_voxel_of_every_patch_lies_in_the_chunk_of_its_iteration(patch, draw, load, write, make_labels):
    cases = [write(name, draw(index)) for index, name in enumerate("ab")]
    config = chunked(SamplingConfig(context_fraction=0.3), 4, (2, 2, 3))
    schedule = make_schedule([case.source for case in cases], config, make_labels(), 5)
    single = load(cases, (1,) * len(patch), config, stop=40)  # of one voxel, which is the centre
    large = load(cases, patch, config, stop=40)
    for iteration, (batch, boxes) in enumerate(zip(single, large, strict=True)):
        (chunk,) = schedule.during(iteration).cases
        assert set(batch.cases) == set(boxes.cases) == {chunk.name}
        for origin in batch.origins:
            voxel = tuple(int(at) for at in origin.centre)
            assert all(low <= at < high for low, at, high in zip(chunk.box.start, voxel, chunk.box.stop, strict=True))
        for origin in boxes.origins:
            low, high = chunk.box.start[-len(patch) :], chunk.box.stop[-len(patch) :]
            reach = [edge / 2 for edge in patch]  # a patch around a voxel may overhang, one anywhere may not
            centre = origin.centre[-len(patch) :]
            assert all(a - r <= at <= b + r for a, at, b, r in zip(low, centre, high, reach, strict=True))
            if origin.code is None:
                inside = zip(low, centre, high, reach, strict=True)
                assert all(a <= at - r + 0.5 and at + r - 0.5 <= b for a, at, b, r in inside)
    turns = [schedule.during(iteration).cases[0] for iteration in range(40)]
    assert all(turns[first : first + 4] == [turns[first]] * 4 for first in range(0, 40, 4))
    assert len({(chunk.name, chunk.box) for chunk in turns}) > 3


def test_a_resumed_run_and_one_with_workers_go_on_with_the_same_chunks(load, write):
    cases = [write(name, sparse(index)) for index, name in enumerate("abc")]
    config = chunked(SamplingConfig(min_annotated=0.01), 3, (2, 2, 2))
    whole = load(cases, (4, 6, 6), config, recipe=True)
    assert same(whole[4:], load(cases, (4, 6, 6), config, recipe=True, start=4))
    assert same(whole[2:], load(cases, (4, 6, 6), config, recipe=True, start=2, workers=2))
    assert not same(whole, load(cases, (4, 6, 6), config, recipe=True, seed=6))


def test_chunks_are_drawn_by_priority_of_the_case_and_then_by_their_annotated_voxels(write, make_labels):
    codes = np.full((1, 4, 20), 3, np.uint8)
    codes[0, :3, 0], codes[0, 0, 5:8], codes[0, :3, 10:13] = 1, 0, 2  # 3, 3, 9 and no voxels in the four chunks
    cases = [write("a", codes), write("b", np.ones((1, 2, 8), np.uint8))]
    sources = [replace(cases[0].source, priority=3.0), cases[1].source, replace(cases[1].source, name="c", priority=0)]
    schedule = make_schedule(sources, chunked(SamplingConfig(), 2, (1, 1, 4)), make_labels(), 0)
    drawn = Counter((c.name, c.box.start[2]) for c in (schedule.during(2 * turn).cases[0] for turn in range(4000)))
    expected = {("a", 0): 0.15, ("a", 5): 0.15, ("a", 10): 0.45, **{("b", start): 1 / 16 for start in (0, 2, 4, 6)}}
    assert {key: number / 4000 for key, number in drawn.items()} == pytest.approx(expected, abs=0.025)
    assert sum(schedule.shares) == pytest.approx(1)


@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 3, 4), (9, 20, 1), (100, 1, 100)])
def test_chunks_tile_the_annotated_voxels_of_a_case(grid, write, make_labels):
    codes = sparse(3)
    case = write("case", codes)
    content = CaseContent.from_entry(case.source, case.entry, make_labels())
    parts = list(chunks_of(content, case, grid))
    total: Counter[int] = Counter()
    for part in parts:
        own = codes[part.box.slices]
        assert part.counts == {code: (own == code).sum() for code in (0, 1, 2) if (own == code).any()}
        assert part.head_codes == tuple(tuple(k for k in codes if k in part.counts) for codes in content.head_codes)
        total.update(part.counts)
    assert total == content.counts and len({part.box for part in parts}) == len(parts)


def test_settings_are_read_from_the_command_line_and_a_grid_that_is_not_used_is_refused():
    given = ["sampling.iterations_per_chunk=500", "sampling.chunks_per_case=2,4,4"]
    sampling = resolve_config({}, given).config.sampling
    assert (sampling.iterations_per_chunk, sampling.chunks_per_case) == (500, (2, 4, 4))
    assert resolve_config({}).config.sampling.iterations_per_chunk == 0
    with pytest.raises(ConfigError, match="without iterations_per_chunk"):
        resolve_config({}, given[1:])
    for wrong in ("2,4", "0,1,1", "a,b,c", "2"):
        with pytest.raises(ConfigError, match="chunks_per_case"):
            resolve_config({}, [given[0], f"sampling.chunks_per_case={wrong}"])
