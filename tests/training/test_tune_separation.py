"""Settings of the separation follow from the records of all folds, and only where these decide."""

from __future__ import annotations

import json
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from objects import UNLABELLED, draw_objects, write_objects

from autoseg import Dataset
from autoseg.cases.case import CaseRecord
from autoseg.core.geometry import Geometry
from autoseg.evaluation.instances import match_instances
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.prepared import PreparedCase
from autoseg.inference.separation_file import read_separation, read_separation_file
from autoseg.io.images import read_labels
from autoseg.tasks.separation import SeparationSettings, as_units, separate
from autoseg.training.tune_separation import (
    CORES,
    LEAST_OBJECTS,
    MOST_VOXELS,
    NECKS,
    SIZES,
    SeparationTrials,
    box_of_objects,
    tune_separation,
)

DEFAULTS = SeparationSettings()
BETTER = SeparationSettings(core=0.3, neck=0.85, min_size=25)


def record(folder, name, matched, n_ref=LEAST_OBJECTS):
    """Write a record in which a setting matches ``matched[setting]`` objects, and others half of the reference."""
    rows = []
    for core, neck, size in product(CORES, NECKS, SIZES):
        n = matched.get((core, neck, size), n_ref // 2)
        rows.append(
            {"core": core, "neck": neck, "min_size": size, "matched": [n] * 10, "n_pred": n_ref, "n_ref": n_ref,
             "matched_iou": float(n)}
        )  # fmt: skip
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


KEY = (BETTER.core, BETTER.neck, BETTER.min_size)


def test_the_defaults_are_on_the_grid():
    assert DEFAULTS.core in CORES and DEFAULTS.neck in NECKS and DEFAULTS.min_size in SIZES


def test_the_best_setting_over_all_folds_is_stored_with_what_it_gained(tmp_path):
    record(tmp_path, "fold_0/validation/separation/a.json", {KEY: 14})
    tune_separation(tmp_path)
    assert read_separation(tmp_path) == BETTER
    record(tmp_path, "fold_1/validation/separation/b.json", {KEY: 2, (0.7, 0.5, 5): 12})
    record(tmp_path, "fold_all/validation/separation/b.json", {KEY: 20}, n_ref=1000)  # has seen its cases
    tune_separation(tmp_path)
    content = read_separation_file(tmp_path)
    assert content.settings == SeparationSettings(core=0.7, neck=0.5, min_size=5)
    assert content.tuning.cases == ("fold_0/a", "fold_1/b") and content.tuning.n_objects == 2 * LEAST_OBJECTS
    assert pytest.approx(22 / 58) == content.tuning.AP50 and content.tuning.AP50_of_defaults == pytest.approx(20 / 60)


def test_a_gain_that_is_noise_keeps_the_defaults(tmp_path):
    record(tmp_path, "fold_0/validation/separation/a.json", {KEY: 501}, n_ref=1000)
    tune_separation(tmp_path)
    assert read_separation(tmp_path) == DEFAULTS and read_separation_file(tmp_path).tuning is not None


def test_too_few_objects_leave_no_file_and_remove_that_of_an_earlier_tuning(tmp_path):
    record(tmp_path, "fold_0/validation/separation/a.json", {KEY: 14})
    tune_separation(tmp_path)
    record(tmp_path, "fold_0/validation/separation/a.json", {KEY: 6}, n_ref=LEAST_OBJECTS - 1)
    tune_separation(tmp_path)
    assert read_separation_file(tmp_path) is None
    tune_separation(tmp_path / "nowhere")


def test_settings_of_a_user_are_kept(tmp_path):
    record(tmp_path, "fold_0/validation/separation/a.json", {KEY: 14})
    (tmp_path / "separation.json").write_text('{"core": 0.42}')
    tune_separation(tmp_path)
    assert read_separation(tmp_path) == SeparationSettings(core=0.42)


def test_a_trial_counts_what_each_setting_matches_where_the_reference_decides(tmp_path):
    dataset = Dataset.load(write_objects(tmp_path / "d", n_cases=2, n_test=0))
    reference, _ = read_labels(dataset.case("c0").label)
    shape = reference.shape
    truth = draw_objects(shape, 6.0, 0)
    row = CaseRecord(
        case="c0", geometry=Geometry(spacing=(999.0, 1.0, 1.0), ndim=2), transpose=(0, 1, 2), shape_before_crop=shape,
        crop_low=(0, 0, 0), crop_high=shape, spacing_before=(999.0, 1.0, 1.0), spacing=(999.0, 1.0, 1.0), shape=shape,
    )  # fmt: skip
    heads = np.stack([truth == 0, truth > 0]).astype(np.float32)
    slab = DecidedSlab(0, (truth > 0).astype(np.uint8), heads)
    trials, output = SeparationTrials(dataset, frozenset({"c0"})), tmp_path / "validation" / "c0.png"
    for name in ("c0.png", "c1.png"):
        own = PreparedCase(row.model_copy(update={"case": name.removesuffix(".png")}), ())
        case = trials.begin(output.with_name(name), own, SimpleNamespace())
        case(slab)
        case.write()
        case.close()
    assert trials.is_written(output) and not trials.is_written(output.with_name("c1.png"))
    rows = json.loads((output.parent / "separation" / "c0.json").read_text())
    decided = reference != UNLABELLED
    for each in rows:
        settings = SeparationSettings(core=each["core"], neck=each["neck"], min_size=each["min_size"])
        parted = separate(truth > 0, as_units(heads[1]), (1, 1, 1), settings)
        counts = match_instances(parted, np.where(decided, reference, 0), decided)
        assert (tuple(each["matched"]), each["n_pred"]) == (counts.matched, counts.n_predicted)
    assert len(rows) == 27 and len({row["n_pred"] for row in rows}) > 1


def test_a_large_case_is_tried_in_a_box_around_its_objects():
    objects = np.zeros((3, 1500, 1200), dtype=np.uint16)
    objects[1, 1400:1480, 20:60] = 1
    box = box_of_objects(objects)
    assert 0.5 * MOST_VOXELS < np.prod(objects[box].shape) <= MOST_VOXELS and (objects[box] > 0).sum() == 80 * 40
    assert box_of_objects(np.zeros((1, 9, 8), np.uint8)) == (slice(0, 1), slice(0, 9), slice(0, 8))
