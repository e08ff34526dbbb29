"""Objects that are parted by affinities block by block are those of the whole volume, in any axes of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from objects import draw_objects, logits_of
from test_stitching import block_in, contents, labels_of, result, settings, stored

from autoseg.core.errors import ConfigError, FileFormatError
from autoseg.core.orientation import VoxelOrder
from autoseg.dataset.instance_numbers import InstanceNumbers
from autoseg.evaluation.contingency import Contingency
from autoseg.inference.block_objects import MUTEX_BYTES, OFFSET_BYTES, settings_within
from autoseg.inference.parting import Pairs, Parting
from autoseg.inference.stitching import stitch_objects
from autoseg.tasks.mutex import part_by_affinities
from autoseg.tasks.separation import SeparationSettings, as_units, renumbered

FLAT = ((0, -1, 0), (0, 0, 1), (0, -5, 0), (0, 0, -4))
DEEP = ((-1, 0, 0), *FLAT, (3, 0, 0))
TURNED = VoxelOrder((2, 0, 1), (True, False, True))
ONE = InstanceNumbers()


def noisy(shape, offsets, *, seed=0):
    """Return mask (z, y, x) and affinities (A, z, y, x) of drawn objects, most of which touch, in the plan's axes."""
    objects = draw_objects(shape, 5.0, seed)
    noise = np.random.default_rng(seed).normal(0, 2.5, (len(offsets), *shape))
    return objects > 0, as_units(1 / (1 + np.exp(-(logits_of(objects, offsets)[1:] + noise))))


def in_file(folder: Path, mask, affinities, offsets, order=None):
    """Return the classes and the parting of arrays in the plan's axes, as a file has them."""
    own = VoxelOrder() if order is None else order
    classes = stored(folder / "c.npy", own.invert(mask.astype(np.uint8)))
    return classes, Parting(stored(folder / "a.npy", own.invert(affinities)), Pairs(offsets=offsets, order=own))


def are_same(one, other):
    """Whether objects are the same but for their numbers."""
    pairs = Contingency.of(one, other)
    return len(pairs.voxels) == len(set(pairs.predicted)) == len(set(pairs.reference))


@pytest.mark.parametrize("order", [None, TURNED], ids=["as stored", "turned"])
@pytest.mark.parametrize(("shape", "offsets"), [((1, 90, 94), FLAT), ((28, 40, 44), DEEP)], ids=["2d", "3d"])
def test_objects_smaller_than_the_halo_are_those_of_the_whole_volume(tmp_path, shape, offsets, order):
    mask, affinities = noisy(shape, offsets)
    whole = renumbered(part_by_affinities(mask, affinities, offsets, top=255), 5)
    expected = (order or VoxelOrder()).invert(whole)
    given = in_file(tmp_path, mask, affinities, offsets, order)
    chosen = settings(block_in(expected.shape, 16), halo=16, min_size=5)
    done = stitch_objects(*given, tmp_path / "o.zarr", labels_of("a"), chosen, numbers=ONE)
    assert are_same(result(tmp_path / "o.zarr"), expected)
    assert done.n_objects == {1: whole.max()} and whole.max() > 8


def test_each_class_is_parted_by_itself_and_an_empty_one_has_no_objects(tmp_path):
    mask, affinities = noisy((1, 60, 60), FLAT)
    classes = np.where(mask, 1 + (np.arange(60) > 30), 0)
    parts = [renumbered(part_by_affinities(classes == value, affinities, FLAT, top=255), 0) for value in (1, 2)]
    _, parting = in_file(tmp_path, mask, affinities, FLAT)
    given = stored(tmp_path / "two.npy", classes.astype(np.uint8)), parting
    labels = labels_of("a", "b", "c")
    done = stitch_objects(*given, tmp_path / "o.zarr", labels, settings((1, 16, 16), halo=16), numbers=ONE)
    expected = np.where(classes == 2, parts[1] + parts[0].max(), parts[0])
    assert done.n_objects == {1: parts[0].max(), 2: parts[1].max(), 3: 0}
    for value in (1, 2):
        found = np.where(classes == value, result(tmp_path / "o.zarr"), 0)
        assert are_same(found, np.where(classes == value, expected, 0))


def test_processes_that_share_the_blocks_write_the_same_bytes(tmp_path):
    given = in_file(tmp_path, *noisy((12, 24, 24), DEEP), DEEP, TURNED)
    labels, chosen = labels_of("a"), settings(halo=6, min_size=5)
    stitch_objects(*given, tmp_path / "one.zarr", labels, chosen, numbers=ONE)
    for index in (2, 1, 2, 1):
        done = stitch_objects(*given, tmp_path / "parts.zarr", labels, chosen, numbers=ONE, part=(index, 2))
        assert done.n_pending
    assert stitch_objects(*given, tmp_path / "parts.zarr", labels, chosen, numbers=ONE).n_pending == 0
    assert contents(tmp_path / "parts.zarr") == contents(tmp_path / "one.zarr")


def test_a_run_that_stops_anywhere_goes_on_and_ends_the_same(tmp_path):
    given = in_file(tmp_path, *noisy((12, 24, 24), DEEP), DEEP, TURNED)
    labels, chosen = labels_of("a"), settings(halo=6)
    stitch_objects(*given, tmp_path / "one.zarr", labels, chosen, numbers=ONE)
    for last in (3, 15, 20, 31):

        def stopping(done: int, total: int, name: str, last: int = last) -> None:
            if done == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            stitch_objects(*given, tmp_path / "o.zarr", labels, chosen, numbers=ONE, progress=stopping)
    assert (tmp_path / "o.zarr/.stitching").is_dir()
    stitch_objects(*given, tmp_path / "o.zarr", labels, chosen, numbers=ONE)
    assert contents(tmp_path / "o.zarr") == contents(tmp_path / "one.zarr")


def test_objects_of_other_offsets_or_axes_are_not_continued_and_mistakes_are_named(tmp_path):
    mask, affinities = noisy((8, 12, 12), DEEP)
    classes, parting = in_file(tmp_path, mask, affinities, DEEP)
    arguments = labels_of("a"), settings(halo=6)

    def stitch(given, name="o"):
        return stitch_objects(classes, given, tmp_path / name, *arguments, numbers=ONE)

    done = stitch(parting)
    assert stitch(parting) == done
    turned = Parting(parting.array, Pairs(offsets=DEEP, order=TURNED))
    for other in (turned, Parting(parting.array, Pairs(offsets=DEEP[::-1]))):
        with pytest.raises(FileFormatError, match=r"objects that were made with pairs .*delete what is there"):
            stitch(other)
    with pytest.raises(FileFormatError, match=r"a.npy: found shape \(6, 8, 12, 12\), expected \(1, 8, 12, 12\)"):
        stitch(parting.array, "p")
    with pytest.raises(ConfigError, match=r"c.npy: found the affinities .*expected also a longer one along z"):
        five = stored(tmp_path / "five.npy", affinities[:5])
        stitch(Parting(five, Pairs(offsets=DEEP[:5])), "p")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("n_offsets", [3, 6])
def test_blocks_are_smaller_the_more_offsets_there_are(n_offsets):
    chosen = settings_within(3.2, (900, 900, 900), SeparationSettings(), is_parted=True, n_offsets=n_offsets)
    n_voxels = np.prod([edge + 64 for edge in chosen.block])
    assert n_voxels * (MUTEX_BYTES + n_offsets * OFFSET_BYTES) <= 3.2e9
    by_cores = settings_within(3.2, (900, 900, 900), SeparationSettings(), is_parted=True)
    assert np.prod(chosen.block) < np.prod(by_cores.block)
