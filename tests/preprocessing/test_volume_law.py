"""A case of a volume gives the same training patches whether it is read into memory or box by box."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoseg.augmentation.recipes import named_recipe
from autoseg.cases.cache import CaseCache, open_store
from autoseg.cases.store import IMAGE, TARGET
from autoseg.core.boxes import Box
from autoseg.core.errors import DatasetError
from autoseg.dataset.dataset import Dataset
from autoseg.io.zarr_writer import ZarrWriter
from autoseg.preprocessing import block_progress, volume_case, volume_size
from autoseg.preprocessing.runner import preprocess_dataset, stale_cases
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.loader import make_loader

SHAPE, TILE = (12, 32, 48), 16
CONFIGURATIONS = {"3d_fullres": (2.0, 1.0, 1.0), "resampled": (2.0, 1.4, 1.4)}


def write_tiles(folder: Path, name: str, array: np.ndarray, missing: list[tuple[int, int, int]]) -> None:
    """Write an array (z, y, x) uint8 as tiles and ``<name>.json``, without some of them (z, row, column)."""
    (folder / name).mkdir(parents=True)
    for z in range(SHAPE[0]):
        for row in range(SHAPE[1] // TILE):
            for column in range(SHAPE[2] // TILE):
                tile = array[z, row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
                if (z, row, column) not in missing:
                    Image.fromarray(tile).save(folder / name / f"{z}_{row}_{column}.png")
    paths = [f"{name}/{z}_{{row}}_{{column}}.png" for z in range(SHAPE[0])]
    content = {"image": paths, "depth": SHAPE[0], "height": SHAPE[1], "width": SHAPE[2], "tile_size": TILE}
    (folder / f"{name}.json").write_text(json.dumps({**content, "dtype": "uint8", "spacing": [2.0, 1.0, 1.0]}))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """Two boxes and all of a volume of tiles, three of which are missing; a class is absent from one box."""
    folder = tmp_path_factory.mktemp("raw") / "Dataset301_Tiles"
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, [edge // 4 for edge in SHAPE]).astype(np.uint8)
    for axis in range(3):
        labels = labels.repeat(4, axis=axis)
    image = np.clip(60 + 60.0 * labels + rng.normal(0, 12, SHAPE), 0, 255).astype(np.uint8)
    labels[:, 20:, :9] = 255
    labels[1:5, 8:30, 20:44][labels[1:5, 8:30, 20:44] == 2] = 0
    write_tiles(folder, "image", image, [(3, 1, 2), (7, 0, 0)])
    write_tiles(folder, "labels", labels, [(4, 1, 1)])
    content = {
        "channel_names": {"0": "EM"},
        "labels": {"background": 0, "a": 1, "b": 2},
        "unlabelled": 255,
        "boxes": {
            "all": {"image": "image.json", "label": "labels.json"},
            "left": {"image": "image.json", "box": [[1, 5], [8, 30], [20, 44]], "label": "labels.json"},
            "right": {"image": "image.json", "box": [[6, 12], [2, 20], [23, 48]], "label": "labels.json"},
        },
        "cases": {"left": {"absent": ["b"]}},
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return Dataset.load(folder)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(volume_case, "CHUNK", (4, 8, 8))
    monkeypatch.setattr(volume_case, "SHARD_VOXELS", 4 * 32 * 32)
    monkeypatch.setattr(volume_case, "LEAST_EDGE", 32)


@pytest.fixture
def both(dataset, tmp_path, make_plan, monkeypatch):
    """Return the function that preprocesses a data set into memory and box by box: plan, and the two caches."""

    def make(name: str, dataset: Dataset = dataset):
        plan = make_plan().model_copy(update={"crop": False})
        chosen = plan.configuration("3d_fullres").model_copy(update={"name": name, "spacing": CONFIGURATIONS[name]})
        plan = plan.model_copy(update={"configurations": {name: chosen}})
        folders = {}
        for limit in (volume_size.IN_MEMORY_VOXELS, 0):
            monkeypatch.setattr(volume_size, "IN_MEMORY_VOXELS", limit)
            folder = folders.setdefault(limit, tmp_path / str(limit))
            report = preprocess_dataset(dataset, plan, name, folder)
            assert not report.failed
        return plan, list(folders.values())

    return make


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_codes_and_intensities_are_the_same(dataset, both, name):
    _, folders = both(name)
    for case_name in dataset.case_names:
        memory, boxes = (open_store(folder, case_name) for folder in folders)
        assert boxes.entry.volume is not None and memory.entry.volume is None
        assert boxes.entry.record == memory.entry.record
        assert boxes.entry.undrawn == memory.entry.undrawn
        whole = Box.whole(memory.entry.record.shape)
        drawn = [case.entry.table.drawn[case.read(TARGET, whole)] for case in (memory, boxes)]
        np.testing.assert_array_equal(drawn[1], drawn[0])
        span = np.ptp(memory.image)
        np.testing.assert_allclose(boxes.read(IMAGE, whole), memory.image, rtol=0, atol=1e-5 * span)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_numbers_of_objects_are_the_same(dataset, both, name):
    numbers = np.random.default_rng(1).integers(0, 250, [edge // 4 for edge in SHAPE]).astype(np.uint8)
    for axis in range(3):
        numbers = numbers.repeat(4, axis=axis)
    if not (dataset.folder / "objects.json").exists():
        write_tiles(dataset.folder, "objects", numbers, [(4, 1, 1)])
    part = {"image": "image.json", "box": [[1, 5], [8, 30], [20, 44]], "label": "objects.json"}
    content = {
        "channel_names": {"0": "EM"}, "labels": {"background": 0, "cell": 1}, "task": "instances",
        "boxes": {"part": part, "all": {"image": "image.json", "label": "objects.json"}},
    }  # fmt: skip
    (dataset.folder / "dataset_objects.json").write_text(json.dumps(content))
    _, folders = both(name, Dataset.load(dataset.folder / "dataset_objects.json"))
    for case_name in ("part", "all"):
        memory, boxes = (open_store(folder, case_name) for folder in folders)
        whole = Box.whole(memory.entry.record.shape)
        np.testing.assert_array_equal(boxes.read("objects", whole), memory.read("objects", whole))
        drawn = [case.entry.table.drawn[case.read(TARGET, whole)] for case in (memory, boxes)]
        np.testing.assert_array_equal(drawn[1], drawn[0])


def test_training_patches_are_the_same(dataset, both):
    """Of a code with more than 10,000 voxels both keep a sample, which is not the same; here is none."""
    plan, folders = both("3d_fullres")
    configuration = plan.configuration("3d_fullres")
    batches = []
    for folder in folders:
        cache = CaseCache.read(folder, dataset.case_names)
        loader = make_loader(
            [cache.source(name) for name in dataset.case_names], configuration,
            SamplingConfig(min_annotated=0.1), named_recipe("nnunet", configuration),
            labels=dataset.labels, start=0, stop=6, seed=0,
        )  # fmt: skip
        batches.append(list(loader))
    for memory, boxes in zip(*batches, strict=True):
        assert memory.cases == boxes.cases
        assert memory.origins == boxes.origins
        np.testing.assert_array_equal(boxes.codes, memory.codes)
        np.testing.assert_allclose(boxes.images, memory.images, rtol=0, atol=1e-4)


def test_worker_processes_open_the_volume_themselves(dataset, both):
    plan, (_, folder) = both("3d_fullres")
    cache, configuration = CaseCache.read(folder, dataset.case_names), plan.configuration("3d_fullres")

    def first(workers):
        loader = make_loader(
            [cache.source("all")], configuration, SamplingConfig(), None, labels=dataset.labels, start=0, stop=2,
            seed=0, workers=workers,
        )  # fmt: skip
        return next(loader)

    np.testing.assert_array_equal(first(0).images, first(1).images)  # this process has used tensorstore before


def test_a_large_case_is_fresh_until_its_files_change(dataset, both):
    plan, folders = both("3d_fullres")
    cache = CaseCache.read(folders[1], dataset.case_names)
    assert not stale_cases(dataset, plan, "3d_fullres", cache, dataset.case_names)
    other = plan.model_copy(
        update={"intensities": plan.intensities, "transpose_forward": (1, 0, 2), "transpose_backward": (1, 0, 2)}
    )
    assert stale_cases(dataset, other, "3d_fullres", cache, dataset.case_names).keys() == set(dataset.case_names)


def test_a_data_set_that_was_moved_is_found_again_without_its_codes_being_made_anew(
    dataset, both, tmp_path, monkeypatch
):
    plan, (_, folder) = both("3d_fullres")
    shutil.copytree(dataset.folder, tmp_path / dataset.folder.name)  # with the same times of modification
    moved = Dataset.load(tmp_path / dataset.folder.name)
    stale = stale_cases(moved, plan, "3d_fullres", CaseCache.read(folder, moved.case_names), moved.case_names)
    assert set(stale) == set(moved.case_names) and set(stale.values()) == {"image file changed"}
    monkeypatch.setattr(ZarrWriter, "write", None)
    assert preprocess_dataset(moved, plan, "3d_fullres", folder).done == moved.case_names
    image = open_store(folder, "left").entry.volume.image
    assert image.locations == (str(tmp_path / dataset.folder.name / "image.json"),)


def test_what_needs_a_case_in_memory_is_refused_with_the_remedy(dataset, tmp_path, make_plan, monkeypatch):
    content = {**dataset.json, "annotation_protocol": {"classes_complete_in": "case"}, "cases": {}}
    (dataset.folder / "dataset_promise.json").write_text(json.dumps(content))
    promised = Dataset.load(dataset.folder / "dataset_promise.json")
    monkeypatch.setattr(volume_size, "IN_MEMORY_VOXELS", 0)
    plan = make_plan().model_copy(update={"crop": False})
    failed = preprocess_dataset(promised, plan, "3d_fullres", tmp_path / "cache").failed
    assert failed.keys() == set(dataset.case_names)
    with pytest.raises(DatasetError, match=r"annotation_protocol.*Give boxes"):
        raise failed["all"]


def test_blocks_of_a_large_case_are_counted_while_they_are_made(dataset, tmp_path, make_plan, monkeypatch):
    """Through a file beside the cache, since the case may be in the hands of another process."""
    monkeypatch.setattr(volume_size, "IN_MEMORY_VOXELS", 0)
    monkeypatch.setattr(block_progress, "WRITTEN_EVERY_S", 0.0)
    monkeypatch.setattr(block_progress, "READ_EVERY_S", 0.001)
    original = ZarrWriter.write

    def slow(self, *arguments):
        time.sleep(0.02)
        original(self, *arguments)

    monkeypatch.setattr(ZarrWriter, "write", slow)
    plan, told = make_plan(spacing=CONFIGURATIONS["resampled"]).model_copy(update={"crop": False}), []
    preprocess_dataset(
        dataset, plan, "3d_fullres", tmp_path, skip={"left", "right"}, progress=lambda *state: told.append(state)
    )
    *meanwhile, last = told
    assert last == (1, 1, "all")
    assert {state[:2] for state in meanwhile} == {(0, 1)}
    said = [what for _, _, what in meanwhile]
    assert said == list(dict.fromkeys(said))
    for layer in ("target", "image"):
        numbers = [
            int(match[1]) for what in said if (match := re.fullmatch(rf"all: {layer}, (\d+) of \d+ blocks", what))
        ]
        assert len(numbers) > 1 and numbers == sorted(numbers)
    assert not list(tmp_path.glob(".*"))
