"""Objects of a prediction: the classes of the label map, parted, with numbers of their own."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from autoseg import Dataset
from autoseg.cases.case import CaseRecord
from autoseg.core.errors import ConfigError, ModelError, PlanError
from autoseg.core.geometry import Geometry
from autoseg.dataset.instance_numbers import InstanceNumbers
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.export import ProbabilitySlab
from autoseg.inference.mean_probabilities import decided_mean_slabs
from autoseg.inference.objects import ObjectMap
from autoseg.inference.prepared import PreparedCase
from autoseg.inference.saved_instances import SavedInstances
from autoseg.inference.separation_file import read_separation
from autoseg.io.images import read_labels
from autoseg.tasks.separation import SeparationSettings, separate

SETTINGS = SeparationSettings(min_size=0)
CLASSES = {
    "channel_names": {"0": "a"}, "labels": {"background": 0, "cell": 1, "nucleus": 2}, "numTraining": 1,
    "file_ending": ".nii.gz",
}  # fmt: skip
REGIONS = {**CLASSES, "labels": {"background": 0, "whole": [1, 2], "nucleus": 2}, "regions_class_order": [1, 2]}


def record(shape: tuple[int, int, int] = (4, 12, 24), margin: int = 2) -> CaseRecord:
    """The record of a case whose file has its axes swapped and flipped, and a border that was cropped."""
    inner = tuple(edge - 2 * margin if axis else edge for axis, edge in enumerate(shape))
    high = tuple(edge - margin if axis else edge for axis, edge in enumerate(shape))
    return CaseRecord(
        case="c", geometry=Geometry(spacing=(1.0, 1.0, 2.0)), transpose=(2, 0, 1), flipped=(False, True, False),
        shape_before_crop=shape, crop_low=(0, margin, margin), crop_high=high,
        spacing_before=(2.0, 1.0, 1.0), spacing=(2.0, 1.0, 1.0), shape=inner,
    )  # fmt: skip


def observed(content, values, *, boundary=None, **options):
    """Return an ``ObjectMap`` that saw ``values`` (z, y, x) with certainty, plane by plane."""
    labels = Dataset.from_json(content, name="d", folder=None).labels
    seen = ObjectMap(record(**options), labels)
    heads = np.stack([np.isin(values, [labels.class_values[k] for k in head.classes]) for head in labels.heads])
    cores = None if boundary is None else (heads & ~boundary).astype(np.float32)
    for plane in range(len(values)):
        part = slice(plane, plane + 1)
        seen(
            DecidedSlab(
                plane, values[part].astype(np.uint8), heads[:, part].astype(np.float32), (),
                None if cores is None else cores[:, part],
            )
        )  # fmt: skip
    return seen


def two_touching() -> np.ndarray:
    """Return (4, 8, 20) values: two cells side by side, and a nucleus in a corner."""
    values = np.zeros((4, 8, 20), dtype=int)
    values[1:3, 1:7, 1:17] = 1
    values[1:3, 1:4, 18:20] = 2
    return values


@pytest.mark.parametrize("content", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_objects_lie_where_the_label_map_has_their_class_in_the_file(content):
    values = two_touching()
    seen = observed(content, values)
    objects = seen.objects(partial(separate, settings=SETTINGS), InstanceNumbers(1000))
    assert objects.shape == (12, 24, 4) and objects.dtype == np.uint16
    classes, _ = seen.arrays()
    np.testing.assert_array_equal(objects // 1000, classes)
    assert set(np.unique(objects)) == {0, 1001, 2001}
    np.testing.assert_array_equal(classes[2:10, 2:22][::-1].transpose(2, 0, 1), values)  # the crop, turned back


def test_a_boundary_parts_cells_of_one_class():
    values = two_touching()
    boundary = np.zeros(values.shape, dtype=bool)
    boundary[..., 8:10] = True
    objects = observed(CLASSES, values, boundary=boundary).objects(
        partial(separate, settings=SETTINGS), InstanceNumbers(1000)
    )
    assert set(np.unique(objects)) == {0, 1001, 1002, 2001}
    assert ((objects > 0) == (observed(CLASSES, values).arrays()[0] > 0)).all()


def test_several_models_part_by_the_mean_of_their_probabilities_of_the_inside():
    """One model sees a boundary, the other none: their mean is below the core, above it the mean of three others."""
    values = two_touching()[..., :16]
    boundary = np.zeros(values.shape, dtype=bool)
    boundary[..., 8:10] = True
    labels = Dataset.from_json({**CLASSES, "task": "instances", "instances_per_class": 9}, name="d", folder=None).labels
    heads = np.stack([values == value for value in range(3)]).astype(np.float32)
    for n_without, expected in ((1, 2), (3, 1)):
        seen = ObjectMap(record(shape=(4, 12, 20)), labels)
        cores = [heads * ~boundary, *[heads] * n_without]
        models = [iter_slabs(heads, of_model.astype(np.float32)) for of_model in cores]
        list(decided_mean_slabs(models, [(0, 1, 2)] * len(models), labels, (seen,)))
        settings = SeparationSettings(core=0.6, min_size=0)
        assert len(np.unique(seen.objects(partial(separate, settings=settings), InstanceNumbers(9)))) == 1 + expected


def iter_slabs(heads, cores):
    """Yield all planes of a model in slabs of its own size."""
    for first in range(len(heads[0])):
        yield ProbabilitySlab(first, heads[:, first : first + 1], (), cores[:, first : first + 1])


def test_numbers_pass_over_the_values_of_background_and_unannotated_voxels():
    one = {**CLASSES, "labels": {"background": 2, "cell": 1}, "unlabelled": 3}
    values = np.full((4, 8, 20), 2)
    for start in range(0, 20, 4):
        values[:, 2:5, start : start + 2] = 1
    objects = observed(one, values).objects(partial(separate, settings=SETTINGS), InstanceNumbers(None))
    assert set(np.unique(objects)) == {1, 2, 4, 5, 6, 7}
    assert objects[0, 0, 0] == 2


@pytest.mark.parametrize(("unlabelled", "expected"), [(13, {11, 12, 14, 15, 16}), (23, {11, 12, 13, 14, 15})])
def test_numbers_of_several_classes_pass_over_the_value_of_unannotated_voxels(unlabelled, expected):
    content = {**CLASSES, "task": "instances", "instances_per_class": 10, "unlabelled": unlabelled}
    values = np.zeros((4, 8, 20), dtype=int)
    for start in range(0, 20, 4):
        values[:, 2:5, start : start + 2] = 1
    objects = observed(content, values).objects(partial(separate, settings=SETTINGS), InstanceNumbers(10))
    assert set(np.unique(objects)) == {0, *expected}


def test_more_objects_than_a_class_has_numbers_are_an_error_that_says_what_to_do():
    values = np.zeros((4, 8, 20), dtype=int)
    values[:, ::2, ::2] = 1
    with pytest.raises(PlanError, match=r"found \d+ objects .* more than 10, instances_per_class"):
        observed(CLASSES, values).objects(partial(separate, settings=SETTINGS), InstanceNumbers(10))


def test_a_case_without_objects_is_background():
    objects = observed(CLASSES, np.zeros((4, 8, 20), dtype=int)).objects(
        partial(separate, settings=SETTINGS), InstanceNumbers(1000)
    )
    assert not objects.any() and objects.dtype == np.uint16


def test_maps_are_written_beside_the_predictions_with_a_dataset_json_that_explains_them(tmp_path):
    dataset = Dataset.from_json(CLASSES, name="d", folder=None)
    output = SavedInstances.by("watershed", dataset, SETTINGS)
    label_map, values = tmp_path / "c.nii.gz", two_touching()
    assert not output.is_written(label_map)
    case = output.begin(label_map, PreparedCase(record(), ()), SimpleNamespace(dataset=dataset))
    heads = np.stack([values == value for value in range(3)]).astype(np.float32)
    case(DecidedSlab(0, values.astype(np.uint8), heads))
    case.write()
    case.close()
    assert output.is_written(label_map)
    written, _ = read_labels(tmp_path / "instances" / "c.nii.gz")
    assert set(np.unique(written)) == {0, 1_000_001, 2_000_001}
    content = json.loads((tmp_path / "instances" / "dataset.json").read_text(encoding="utf-8"))
    labels = Dataset.from_json(content, name="i", folder=None).labels
    assert labels.class_names == ("background", "cell", "nucleus") and labels.instances == InstanceNumbers(1_000_000)


def test_methods_that_cannot_be_used_are_refused(monkeypatch):
    dataset = Dataset.from_json(CLASSES, name="d", folder=None)
    objects = Dataset.from_json({**CLASSES, "task": "instances", "instances_per_class": 10}, name="i", folder=None)
    with pytest.raises(ConfigError, match="found 'fish', expected one of watershed, cellpose"):
        SavedInstances.by("fish", dataset, SETTINGS)
    with pytest.raises(ConfigError, match="already hold objects"):
        SavedInstances.by("watershed", objects, SETTINGS)
    monkeypatch.setitem(__import__("sys").modules, "cellpose", None)
    with pytest.raises(ConfigError, match="pip install cellpose"):
        SavedInstances.by("cellpose", dataset, SETTINGS)


@pytest.mark.parametrize("shape", [(1, 6, 9), (3, 6, 9)], ids=["2d", "3d"])
def test_cellpose_sees_probabilities_and_its_objects_stay_within_the_class(shape, monkeypatch):
    calls = []

    class CellposeModel:
        def __init__(self, gpu):
            assert gpu is False

        def eval(self, image, **options):
            calls.append((image.shape, image.max(), options))
            found = np.zeros(image.shape, dtype=np.int64)
            found[..., :4], found[..., 4:] = 9, 4
            return found, None, None

    models = SimpleNamespace(CellposeModel=CellposeModel)
    monkeypatch.setitem(__import__("sys").modules, "cellpose", SimpleNamespace(models=models))
    monkeypatch.setitem(__import__("sys").modules, "cellpose.models", models)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    output = SavedInstances.by("cellpose", Dataset.from_json(CLASSES, name="d", folder=None), SETTINGS)
    mask = np.zeros(shape, dtype=bool)
    mask[:, 1:5, 1:7] = True
    objects = output.separate(mask, np.where(mask, 255, 0).astype(np.uint8), (4.0, 1.0, 2.0))
    np.testing.assert_array_equal(objects > 0, mask)
    assert objects[0, 2, 2] == 2 and objects[0, 2, 5] == 1  # in the order of cellpose's numbers
    (seen, highest, options), *others = calls
    assert highest == 1 and not others and options["diameter"] is None
    assert seen == (shape[1:] if shape[0] == 1 else shape)
    assert options.get("anisotropy") == (None if shape[0] == 1 else 4.0)
    assert not output.separate(np.zeros(shape, bool), np.zeros(shape, np.uint8), (1.0, 1.0, 1.0)).any()


def test_settings_of_a_model_folder_are_read_and_wrong_ones_named(tmp_path):
    assert read_separation(tmp_path) == SeparationSettings()
    (tmp_path / "separation.json").write_text('{"core": 0.3, "min_size": 50}')
    assert read_separation(tmp_path) == SeparationSettings(core=0.3, min_size=50)
    (tmp_path / "separation.json").write_text('{"core": 3, "minsize": 50}')
    with pytest.raises(ModelError, match=r"separation\.json: found wrong entries \(core: .*minsize"):
        read_separation(tmp_path)
