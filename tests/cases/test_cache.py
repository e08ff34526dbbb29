import pickle

import numpy as np
import pytest

from autoseg.cases.cache import CaseCache, open_case, read_entry, remove_cases, write_case
from autoseg.cases.case import CaseRecord
from autoseg.cases.entry import CacheEntry
from autoseg.cases.layers import Kind, LayerInfo
from autoseg.core.boxes import Box
from autoseg.core.errors import CacheError
from autoseg.core.geometry import Geometry


def make_entry(shape, fingerprint="abc"):
    record = CaseRecord(
        case="a", geometry=Geometry(spacing=(3, 2, 1)), transpose=(0, 1, 2), shape_before_crop=shape,
        crop_low=(0, 0, 0), crop_high=shape, spacing_before=(3, 2, 1), spacing=(3, 2, 1), shape=shape,
    )  # fmt: skip
    return CacheEntry(
        record=record, label_sets=[[0], [1], [0, 1]], undrawn=2, n_classes=2, locations={0: (0, 1), 1: (1, 3)},
        code_counts={0: 1, 1: 2}, fingerprint=fingerprint,
    )  # fmt: skip


def write(folder, shape=(2, 3, 4), locations=(5, 0, 7), fingerprint="abc"):
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    codes = np.full(shape, 2, np.uint8)
    write_case(
        folder, "a", image=image, codes=codes, locations=np.array(locations, np.int32),
        entry=make_entry(shape, fingerprint),
    )  # fmt: skip
    return image, codes


@pytest.mark.parametrize("shape", [(1, 5, 4), (2, 3, 4)], ids=["2d", "3d"])
def test_a_case_comes_back_memory_mapped_and_read_only(tmp_path, shape):
    image, codes = write(tmp_path, shape)
    case = open_case(tmp_path, "a")
    np.testing.assert_array_equal(case.image, image)
    np.testing.assert_array_equal(case.codes, codes)
    assert isinstance(case.image, np.memmap)
    assert not case.codes.flags.writeable
    assert case.entry == make_entry(shape) == read_entry(tmp_path, "a")
    assert case.entry.table.drawn.tolist() == [[True, False], [False, True], [True, True]]
    assert case.locations_of(1).tolist() == [0, 7]
    assert case.locations_of(2).size == 0
    np.testing.assert_array_equal(np.load(tmp_path / "a.image.npy"), image)


def test_pickling_sends_the_path_only(tmp_path):
    write(tmp_path, (20, 30, 40))
    message = pickle.dumps(open_case(tmp_path, "a"))
    assert len(message) < 1000
    assert isinstance(pickle.loads(message).image, np.memmap)  # noqa: S301 (our own bytes)


def test_a_record_that_was_read_is_not_read_again(tmp_path):
    write(tmp_path)
    cache = CaseCache.read(tmp_path, ["a", "ghost"])
    assert cache.entries == {"a": make_entry((2, 3, 4))}
    (tmp_path / "a.json").unlink()
    source = pickle.loads(pickle.dumps(cache.source("a", 2.0)))  # noqa: S301 (our own bytes)
    assert (source.name, source.priority, source.open().entry) == ("a", 2.0, make_entry((2, 3, 4)))
    with pytest.raises(CacheError, match="ghost"):
        cache.source("ghost").open()


def test_a_case_without_locations_is_a_case(tmp_path):
    write(tmp_path, locations=())
    assert open_case(tmp_path, "a").locations.shape == (0,)


@pytest.mark.parametrize("suffix", ["json", "image.npy", "target.npy", "locations.npy"])
def test_a_missing_file_means_no_case(tmp_path, suffix):
    write(tmp_path)
    (tmp_path / f"a.{suffix}").unlink()
    assert read_entry(tmp_path, "a") is None
    with pytest.raises(CacheError, match="autoseg_plan_and_preprocess"):
        open_case(tmp_path, "a")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"0", lambda data: b"junk" + data])
def test_a_damaged_array_is_named(tmp_path, change):
    write(tmp_path)
    path = tmp_path / "a.image.npy"
    path.write_bytes(change(path.read_bytes()))
    assert read_entry(tmp_path, "a") is None
    with pytest.raises(CacheError, match=r"a\.image\.npy: .*expected"):
        open_case(tmp_path, "a")


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        ("image", np.nan, "intensities that are not finite"),
        ("image", -np.inf, "intensities that are not finite"),
        ("target", 250, "code 250 of"),
    ],
)
def test_voxels_that_nobody_wrote_are_named_when_they_are_read(tmp_path, kind, value, problem):
    write(tmp_path)
    case = open_case(tmp_path, "a")
    everything, nothing = Box.whole((2, 3, 4)), Box.whole((0, 3, 4))
    case.read(kind, everything)
    array = np.load(tmp_path / f"a.{kind}.npy", mmap_mode="r+")
    array.flat[-1] = value
    array.flush()
    with pytest.raises(CacheError, match=rf"a\.{kind}\.npy: found {problem}.* Remove .*a\.json"):
        case.read(kind, everything)
    case.read(kind, Box.whole((1, 3, 4)))
    assert case.read(kind, nothing).size == 0


def test_numbers_may_be_unknown_but_not_infinite(tmp_path):
    numbers = np.full((1, 2, 3, 4), np.nan, np.float32)
    numbers[..., 0] = 1.5
    info = LayerInfo(name="targets", kind=Kind.NUMBERS, dtype="float32")
    codes, entry = np.full((2, 3, 4), 2, np.uint8), make_entry((2, 3, 4)).model_copy(update={"layers": (info,)})
    for array in (numbers, np.where(np.isnan(numbers), np.float32(np.inf), numbers)):
        write_case(
            tmp_path, "a", image=np.zeros((1, 2, 3, 4), np.float32), codes=codes, locations=np.zeros(3, np.int32),
            entry=entry, layers={"targets": array},
        )  # fmt: skip
        case, box = open_case(tmp_path, "a"), Box.whole((2, 3, 4))
        if np.isnan(array).any():
            np.testing.assert_array_equal(case.read("targets", box), numbers)
        else:
            with pytest.raises(CacheError, match=r"a\.targets\.npy: found numbers that are infinite"):
                case.read("targets", box)


def test_a_damaged_record_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "a.json").write_text('{"n_classes": 2}')
    assert read_entry(tmp_path, "a") is None
    with pytest.raises(CacheError, match="found 6 wrong entries"):
        open_case(tmp_path, "a")


def test_arrays_of_another_case_are_noticed(tmp_path):
    write(tmp_path)
    np.save(tmp_path / "a.target.npy", np.zeros((2, 3, 5), np.uint8))
    with pytest.raises(CacheError, match=r"target \(2, 3, 5\), expected shape \(2, 3, 4\)"):
        open_case(tmp_path, "a")


def test_a_rewrite_that_fails_leaves_no_case_instead_of_a_mixed_one(tmp_path, monkeypatch):
    write(tmp_path)

    def full_disk(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path, fingerprint="new")
    assert read_entry(tmp_path, "a") is None
    assert not list(tmp_path.glob(".*"))


def test_shapes_that_do_not_belong_together_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected \(C, \*S\), \(\*S\), \*S and \(L,\)"):
        write_case(
            tmp_path, "a", image=np.zeros((1, 2, 3, 4), np.float32), codes=np.zeros((2, 3, 5), np.uint8),
            locations=np.zeros(0, np.int32), entry=make_entry((2, 3, 4)),
        )  # fmt: skip


def test_a_removed_case_leaves_no_file_however_damaged_it_was(tmp_path):
    write(tmp_path)
    np.save(tmp_path / "a.previous.npy", np.zeros(1))
    other = tmp_path / "a.b.image.npy"
    other.touch()
    (tmp_path / "a.image.npy").unlink()
    remove_cases(tmp_path, ["a"])
    assert list(tmp_path.iterdir()) == [other]
