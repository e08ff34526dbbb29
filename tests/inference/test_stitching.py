"""Objects made block by block are those of the whole volume, whatever the blocks, processes and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from autoseg import Dataset
from autoseg.core.boxes import Box
from autoseg.core.errors import ConfigError, FileFormatError, PlanError
from autoseg.core.geometry import FLAT_SPACING, Geometry
from autoseg.dataset.instance_numbers import InstanceNumbers
from autoseg.evaluation.contingency import Contingency
from autoseg.evaluation.partitions import count_partitions
from autoseg.inference.block_objects import COMPONENT_BYTES, PARTED_BYTES, StitchSettings, settings_within
from autoseg.inference.stitching import stitch_objects
from autoseg.io.arrays import open_array
from autoseg.tasks.separation import SeparationSettings, renumbered, separate

SOLID, FLAT = Geometry(spacing=(1.0, 1.0, 1.0)), Geometry(spacing=(FLAT_SPACING, 1.0, 1.0), ndim=2)
MANY = InstanceNumbers(100_000)
SHAPES = pytest.mark.parametrize(("shape", "geometry"), [((11, 13, 22), SOLID), ((1, 30, 51), FLAT)], ids=["3d", "2d"])


def labels_of(*names: str, background: int = 0):
    values = {"background": background} | {name: number for number, name in enumerate(names, background + 1)}
    content = {
        "channel_names": {"0": "a"}, "labels": values, "numTraining": 1, "file_ending": ".nii.gz",
        **({"unlabelled": 0, "task": "instances"} if background else {}),
    }  # fmt: skip
    return Dataset.from_json(content, name="d", folder=None).labels


def stored(path: Path, array: np.ndarray, geometry: Geometry = SOLID):
    """Return an array (z, y, x) on disk."""
    np.save(path, array)
    opened = open_array(path)
    return replace(opened, header=opened.header._replace(geometry=geometry))


def settings(block: tuple[int, int, int] = (8, 8, 8), *, halo: int = 0, **separation) -> StitchSettings:
    options = {"min_size": 0} | separation
    return StitchSettings(separation=SeparationSettings(**options), halo=(halo,) * 3, block=block, chunk=block)


def block_in(shape: tuple[int, ...], edge: int) -> tuple[int, int, int]:
    return (1 if shape[0] == 1 else edge, edge, edge)


def result(output: Path) -> np.ndarray:
    volume = open_array(output)
    return volume.read(Box.whole(volume.spatial_shape))[0]


def contents(output: Path) -> dict[str, bytes]:
    """Return the content of every file."""
    return {str(path.relative_to(output)): path.read_bytes() for path in sorted(output.rglob("*")) if path.is_file()}


def winding(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return (z, y, x) of two classes whose objects wind through many blocks, and specks."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), [0 if n == 1 else 1.2 for n in shape])
    classes = np.digitize(noise, np.quantile(noise, [0.45, 0.75]))
    return np.where(rng.random(shape) < 0.02, rng.integers(0, 3, shape), classes).astype(np.uint8)


def components(classes: np.ndarray, min_size: int = 0) -> np.ndarray:
    """Return the components of classes 1 and 2 of the whole array, by SciPy."""
    found = np.zeros(classes.shape, dtype=np.uint32)
    for value in (1, 2):
        objects = renumbered(ndimage.label(classes == value)[0].astype(np.uint32), min_size)
        found[objects > 0] = objects[objects > 0].astype(np.uint32) + 100_000 * value
    return found


def touching(shape: tuple[int, ...], n: int, radius: int, *, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mask and probability (z, y, x) of balls that touch; ``edge`` is the probability at their borders."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 1, (n, 3)) * (np.array(shape) - 1)
    distance, nearest = cKDTree(centres).query(np.stack(np.indices(shape), -1).reshape(-1, 3))
    objects = np.where(distance <= radius, nearest + 1, 0).reshape(shape)
    is_edge = np.zeros(shape, dtype=bool)
    for axis, step in [(axis, step) for axis in range(3) if shape[axis] > 1 for step in (1, -1)]:
        is_edge |= np.roll(objects, step, axis) != objects
    probability = np.where(objects == 0, 0, np.where(is_edge, edge, 230)) + rng.normal(0, 8, shape)
    return (objects > 0).astype(np.uint8), np.clip(probability, 0, 255).astype(np.uint8)


@SHAPES
@pytest.mark.parametrize("min_size", [0, 12])
def test_components_are_those_of_the_whole_volume_in_the_order_of_first_voxels(tmp_path, shape, geometry, min_size):
    classes = winding(shape)
    given = stored(tmp_path / "c.npy", classes, geometry)
    chosen = settings(block_in(shape, 8), min_size=min_size)
    done = stitch_objects(given, None, tmp_path / "o.zarr", labels_of("a", "b"), chosen, numbers=MANY)
    expected = components(classes, min_size)
    np.testing.assert_array_equal(result(tmp_path / "o.zarr"), expected)
    assert done.n_pending == 0
    assert done.n_objects == {value: len(np.unique(expected[(classes == value) & (expected > 0)])) for value in (1, 2)}
    assert sum(done.n_objects.values()) > 2
    assert open_array(tmp_path / "o.zarr").geometry.ndim == geometry.ndim
    assert [path.name for path in (tmp_path / "o.zarr").iterdir() if path.name == ".stitching"] == []


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_objects_of_slices_that_are_kept_apart_are_those_of_each_slice_alone(tmp_path, axis):
    """Components: the numbers of slices follow one another. Parted objects: one to one."""
    shape = [14, 15, 16]
    shape[axis] = 3
    classes = (winding(tuple(shape)) > 0).astype(np.uint8)
    mask, probability = touching(tuple(shape), 12, 3, edge=60)
    block = tuple(1 if at == axis else 8 for at in range(3))
    chosen = StitchSettings(
        separation=SeparationSettings(min_size=4), halo=tuple(0 if at == axis else 16 for at in range(3)), block=block,
        chunk=block, apart=axis,
    )  # fmt: skip
    labels, numbers = labels_of("a"), InstanceNumbers()
    given = stored(tmp_path / "c.npy", classes)
    done = stitch_objects(given, None, tmp_path / "o.zarr", labels, chosen, numbers=numbers)
    cores = stored(tmp_path / "p.npy", probability)
    parted = stored(tmp_path / "m.npy", mask)
    stitch_objects(parted, cores, tmp_path / "parted.zarr", labels, chosen, numbers=numbers)
    taken: set[int] = set()
    slices = (np.moveaxis(array, axis, 0) for array in (classes, result(tmp_path / "o.zarr")))
    for own, found in zip(*slices, strict=True):
        expected = renumbered(ndimage.label(own)[0].astype(np.uint32), 4)
        pairs = set(zip(expected.ravel().tolist(), found.ravel().tolist(), strict=True))
        assert len(pairs) == len(dict(pairs)) == len({number for _, number in pairs})
        here = set(np.unique(found[found > 0]).tolist())
        assert not here & taken
        taken |= here
    assert taken == set(range(1, done.n_objects[1] + 1)) and done.n_long == 0
    slices = (np.moveaxis(array, axis, 0) for array in (mask, probability, result(tmp_path / "parted.zarr")))
    for own, probable, found in zip(*slices, strict=True):
        expected = separate(own > 0, probable, (1.0, 1.0), chosen.separation)
        pairs = set(zip(expected.ravel().tolist(), found.ravel().tolist(), strict=True))
        assert len(pairs) == len(dict(pairs)) == int(expected.max()) + 1


def test_a_ring_through_many_blocks_is_one_object_and_its_neighbour_at_an_edge_another(tmp_path):
    classes = np.zeros((3, 20, 20), dtype=np.uint8)
    classes[1, 2:18, 2:18] = 1
    classes[1, 3:17, 3:17] = 0
    classes[2, 18, 18] = 1  # shares a corner with the ring
    given = stored(tmp_path / "c.npy", classes)
    done = stitch_objects(
        given, None, tmp_path / "o.zarr", labels_of("a"), settings((2, 5, 5)), numbers=InstanceNumbers()
    )
    found = result(tmp_path / "o.zarr")
    assert done.n_objects == {1: 2}
    assert set(found[1][classes[1] > 0]) == {1} and found[2, 18, 18] == 2
    assert found.dtype == np.uint16


@pytest.mark.parametrize("is_parted", [False, True], ids=["components", "parted"])
def test_processes_that_share_the_blocks_write_the_same_bytes(tmp_path, is_parted):
    mask, probability = touching((10, 20, 20), 20, 5, edge=60)
    classes, cores = stored(tmp_path / "c.npy", mask), stored(tmp_path / "p.npy", probability) if is_parted else None
    given, rule = (classes, cores), {"numbers": InstanceNumbers()}
    labels, chosen = labels_of("a"), settings(halo=8, min_size=5)
    stitch_objects(*given, tmp_path / "one.zarr", labels, chosen, **rule)
    for index in (3, 1):
        waiting = stitch_objects(*given, tmp_path / "parts.zarr", labels, chosen, part=(index, 3), **rule)
        assert waiting.n_pending and not waiting.n_objects
    for index in (2, 1, 3):
        assert stitch_objects(*given, tmp_path / "parts.zarr", labels, chosen, part=(index, 3), **rule).n_pending
    assert stitch_objects(*given, tmp_path / "parts.zarr", labels, chosen, **rule).n_pending == 0
    assert contents(tmp_path / "parts.zarr") == contents(tmp_path / "one.zarr")


@pytest.mark.parametrize("shape", [(30, 40, 50), (1, 120, 120)], ids=["3d", "2d"])
@pytest.mark.parametrize("edge", [60, 230], ids=["learnt boundaries", "shape alone"])
def test_objects_smaller_than_the_halo_are_parted_as_in_the_whole_volume(tmp_path, shape, edge):
    mask, probability = touching(shape, 60, 5, edge=edge)
    whole = separate(mask > 0, probability, (1.0, 1.0, 1.0), SeparationSettings(min_size=5))
    given = stored(tmp_path / "c.npy", mask), stored(tmp_path / "p.npy", probability)
    chosen = settings(block_in(shape, 24), halo=24, min_size=5)
    done = stitch_objects(*given, tmp_path / "o.zarr", labels_of("a"), chosen, numbers=InstanceNumbers())
    pairs = Contingency.of(result(tmp_path / "o.zarr"), whole)
    assert len(pairs.voxels) == len(set(pairs.predicted)) == len(set(pairs.reference)) == whole.max() + 1
    assert (done.n_objects, done.n_long > 0) == ({1: whole.max()}, edge == 230)  # shape alone merges some balls
    assert whole.max() > 10


def test_objects_longer_than_the_halo_stay_nearly_those_of_the_whole_volume(tmp_path):
    mask, probability = touching((1, 300, 300), 40, 25, edge=230)
    whole = separate(mask > 0, probability, (1.0, 1.0, 1.0), SeparationSettings(min_size=5))
    given = stored(tmp_path / "c.npy", mask), stored(tmp_path / "p.npy", probability)
    chosen = settings((1, 64, 64), halo=32, min_size=5)
    done = stitch_objects(*given, tmp_path / "o.zarr", labels_of("a"), chosen, numbers=InstanceNumbers())
    assert done.n_long > 5
    found = count_partitions(Contingency.of(result(tmp_path / "o.zarr"), whole))
    assert found.split is not None and found.merge is not None and found.rand_error is not None
    assert found.split + found.merge < 0.1
    assert found.rand_error < 0.1


def test_nothing_larger_than_a_block_with_its_halo_is_read(tmp_path):
    mask, probability = touching((12, 24, 32), 20, 5, edge=60)
    sizes = []

    def watched(array):
        def load(box):
            sizes.append(box.shape)
            return array.load(box)

        return replace(array, load=load)

    given = watched(stored(tmp_path / "c.npy", mask)), watched(stored(tmp_path / "p.npy", probability))
    stitch_objects(*given, tmp_path / "o.zarr", labels_of("a"), settings(halo=4), numbers=InstanceNumbers())
    assert max(sizes) == (12, 16, 16) and len(sizes) == 2 * 2 * 3 * 4


def test_a_run_that_is_killed_goes_on_and_ends_the_same(tmp_path):
    np.save(tmp_path / "c.npy", winding((10, 24, 24)))
    given, chosen = open_array(tmp_path / "c.npy"), settings(min_size=3)
    stitch_objects(given, None, tmp_path / "one.zarr", labels_of("a", "b"), chosen, numbers=MANY)
    code = (
        "import sys; from tests.inference.test_stitching import *; "
        "stitch_objects(open_array(sys.argv[1]), None, Path(sys.argv[2]), labels_of('a', 'b'), settings(min_size=3), "
        "numbers=MANY, progress=lambda *step: print(step, flush=True))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "c.npy"), str(tmp_path / "killed.zarr")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert (tmp_path / "killed.zarr/.stitching").is_dir()

    def stopping(done: int, total: int, name: str) -> None:
        if name.startswith("numbers") and done > 0.7 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stitch_objects(
            given, None, tmp_path / "killed.zarr", labels_of("a", "b"), chosen, numbers=MANY, progress=stopping
        )
    stitch_objects(given, None, tmp_path / "killed.zarr", labels_of("a", "b"), chosen, numbers=MANY)
    assert contents(tmp_path / "killed.zarr") == contents(tmp_path / "one.zarr")


def test_an_empty_map_has_no_objects(tmp_path):
    given = stored(tmp_path / "c.npy", np.zeros((9, 9, 9), dtype=np.uint8))
    for cores, name in ((None, "a"), (given, "b")):
        done = stitch_objects(given, cores, tmp_path / f"{name}.zarr", labels_of("a"), settings(), numbers=MANY)
        assert done.n_objects == {1: 0}
        assert not result(tmp_path / f"{name}.zarr").any()


def test_background_and_unannotated_voxels_keep_their_values(tmp_path):
    classes = np.ones((4, 9, 9), dtype=np.uint8)
    classes[:, ::2, ::2] = 2
    given = stored(tmp_path / "c.npy", classes)
    labels = labels_of("cell", background=1)
    stitch_objects(given, None, tmp_path / "o.zarr", labels, settings((2, 4, 4)), numbers=InstanceNumbers())
    found = result(tmp_path / "o.zarr")
    assert (found[classes == 1] == 1).all()
    assert sorted(np.unique(found[classes == 2])) == list(range(2, 27))


def test_the_classes_of_regions_have_objects_of_their_own(tmp_path):
    content = {
        "channel_names": {"0": "a"}, "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "regions_class_order": [1, 2], "numTraining": 1, "file_ending": ".nii.gz",
    }  # fmt: skip
    classes = winding((5, 12, 13))
    given = stored(tmp_path / "c.npy", classes)
    labels = Dataset.from_json(content, name="d", folder=None).labels
    stitch_objects(given, None, tmp_path / "o.zarr", labels, settings((4, 4, 4)), numbers=MANY)
    np.testing.assert_array_equal(result(tmp_path / "o.zarr"), components(classes))


def test_a_finished_result_is_not_made_again_and_another_one_not_overwritten(tmp_path):
    given = stored(tmp_path / "c.npy", winding((9, 9, 9)))
    labels = labels_of("a", "b")
    done = stitch_objects(given, None, tmp_path / "o.zarr", labels, settings(), numbers=MANY)
    before = contents(tmp_path / "o.zarr")
    blind = replace(given, load=lambda box: pytest.fail("read again"))
    assert stitch_objects(blind, None, tmp_path / "o.zarr", labels, settings(), numbers=MANY) == done
    with pytest.raises(FileFormatError, match=r"objects that were made with settings .*min_size=0.*delete what is"):
        stitch_objects(given, None, tmp_path / "o.zarr", labels, settings(min_size=4), numbers=MANY)
    given = stored(tmp_path / "c.npy", winding((9, 9, 9), seed=1))
    with pytest.raises(FileFormatError, match=r"objects of arrays that were written anew since, expected none. Choose"):
        stitch_objects(given, None, tmp_path / "o.zarr", labels, settings(), numbers=MANY)
    assert contents(tmp_path / "o.zarr") == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    with pytest.raises(FileFormatError, match=r"other: found something else, expected no such folder"):
        stitch_objects(given, None, tmp_path / "other", labels, settings(), numbers=MANY)


def test_mistakes_are_named_before_anything_is_written(tmp_path):
    classes = stored(tmp_path / "c.npy", winding((9, 9, 9)))
    labels = labels_of("a", "b")
    wrong = {
        r"p.npy: found shape \(1, 9, 9, 8\), expected \(1, 9, 9, 9\)": np.zeros((9, 9, 8), np.uint8),
        "p.npy: found values of float32, expected uint8, in 1/255": np.zeros((9, 9, 9), np.float32),
    }
    for message, array in wrong.items():
        with pytest.raises(FileFormatError, match=message):
            stitch_objects(classes, stored(tmp_path / "p.npy", array), tmp_path / "o", labels, settings(), numbers=MANY)
    image = stored(tmp_path / "i.npy", np.zeros((9, 9, 9), np.float32))
    with pytest.raises(FileFormatError, match="values of float32, expected integers"):
        stitch_objects(image, None, tmp_path / "o", labels, settings(), numbers=MANY)
    for part in ((0, 3), (4, 3)):
        with pytest.raises(ValueError, match=r"part .*, expected \(i, n\) with i from 1 to n"):
            stitch_objects(classes, None, tmp_path / "o", labels, settings(), numbers=MANY, part=part)
    assert not (tmp_path / "o").exists()


def test_values_of_no_class_and_too_many_objects_are_named(tmp_path):
    classes = winding((9, 9, 9))
    classes[8, 8, 8] = 9
    given = stored(tmp_path / "c.npy", classes)
    with pytest.raises(FileFormatError, match=r"c.npy: found the values 9 in \[8:9, 8:9, 8:9\], expected .* 0, 1, 2"):
        stitch_objects(given, None, tmp_path / "o", labels_of("a", "b"), settings(), numbers=MANY)
    given = stored(tmp_path / "d.npy", winding((9, 20, 20)))
    with pytest.raises(PlanError, match=r"case brain: found .* objects of the class with the value 1, more than 10"):
        numbers = InstanceNumbers(10)
        stitch_objects(given, None, tmp_path / "p", labels_of("a", "b"), settings(), numbers=numbers, case="brain")


@pytest.mark.parametrize(
    ("memory_gb", "shape", "halo"),
    [
        (2.0, (2000, 64000, 64000), 32),
        (2.0, (30, 5000, 5000), 16),
        (1.0, (400, 400, 400), 0),
        (1.0, (1, 9000, 9000), 32),
    ],
)
def test_blocks_are_as_large_as_memory_allows(memory_gb, shape, halo):
    chosen = settings_within(memory_gb, shape, SeparationSettings(), halo=(halo,) * 3, is_parted=halo > 0)

    def fits(block):
        outer = [min(edge + 2 * halo, end) for edge, end in zip(block, shape, strict=True)]
        return np.prod(outer) * (PARTED_BYTES if halo else COMPONENT_BYTES) <= memory_gb * 1e9

    assert fits(chosen.block)
    for axis, step in enumerate(chosen.chunk):
        larger = [edge + step * (axis == at) for at, edge in enumerate(chosen.block)]
        assert chosen.block[axis] >= shape[axis] or not fits(larger) or larger[axis] > 1024
        assert chosen.block[axis] % step == 0
    assert max(shape) / 2 ** (chosen.levels - 1) <= 1024


@pytest.mark.parametrize(("edge", "is_whole"), [(2000, True), (20_000, False)])
def test_a_slice_that_is_kept_apart_is_one_block_if_it_fits(edge, is_whole):
    chosen = settings_within(1.0, (edge, 90, edge), SeparationSettings(), is_parted=True, apart=1)
    assert chosen.apart == 1 and chosen.halo == (32, 0, 32) and chosen.block[1] == chosen.chunk[1] == 1
    assert (chosen.block[0] >= edge and chosen.block[2] >= edge) == is_whole
    z, y, x = (size + 2 * around for size, around in zip(chosen.block, chosen.halo, strict=True))
    assert PARTED_BYTES * min(z, edge) * y * min(x, edge) <= 1e9


def test_too_little_memory_is_named():
    with pytest.raises(ConfigError, match=r"found 0.1 GB, expected at least 0\.\d+ GB, for blocks of \(64, 64, 64\)"):
        settings_within(0.1, (500, 500, 500), SeparationSettings(), is_parted=True)
