"""Settings of the separation follow from the records of all folds, and only where these decide."""

from __future__ import annotations

import json
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from objects import UNLABELLED, draw_objects, logits_of, write_objects

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
FLAT = ((0, -1, 0), (0, 0, -1), (0, -5, 0), (0, 0, -5))
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


def flat_record(shape):
    """Return the record of the case c0, an image of one slice that nothing was done to."""
    spacing = (999.0, 1.0, 1.0)
    return CaseRecord(
        case="c0", geometry=Geometry(spacing=spacing, ndim=2), transpose=(0, 1, 2), shape_before_crop=shape,
        crop_low=(0, 0, 0), crop_high=shape, spacing_before=spacing, spacing=spacing, shape=shape,
    )  # fmt: skip


def with_mutex(folder, name, n_matched):
    """Add the mutex watershed, which matches so many of 20 objects, to a record that matches half of them."""
    record(folder, name, {})
    path = folder / name
    rows = json.loads(path.read_text())
    for size in SIZES:
        rows.append(
            {"method": "mutex", "core": 0.5, "neck": 0.7, "min_size": size, "matched": [n_matched] * 10, "n_pred": 20,
             "n_ref": 20, "matched_iou": float(n_matched)}
        )  # fmt: skip
    path.write_text(json.dumps(rows))


def test_the_mutex_watershed_is_stored_where_it_is_better_and_was_tried_on_every_case(tmp_path):
    with_mutex(tmp_path, "fold_0/validation/separation/a.json", 15)
    tune_separation(tmp_path)
    assert read_separation(tmp_path) == SeparationSettings(method="mutex")
    record(tmp_path, "fold_1/validation/separation/b.json", {})  # made where the package was missing
    tune_separation(tmp_path)
    assert read_separation(tmp_path) == DEFAULTS
    with_mutex(tmp_path, "fold_1/validation/separation/b.json", 2)
    tune_separation(tmp_path)
    assert read_separation(tmp_path) == DEFAULTS


@pytest.mark.parametrize("offsets", [FLAT, FLAT[:2], None], ids=["longer", "nearest", "boundaries"])
def test_a_trial_tries_the_mutex_watershed_if_the_offsets_suffice(offsets, tmp_path):
    keys = {} if offsets is None else {"affinities": [list(offset) for offset in offsets]}
    dataset = Dataset.load(write_objects(tmp_path / "d", n_cases=1, n_test=0, **keys))
    reference, _ = read_labels(dataset.case("c0").label)
    truth = draw_objects(reference.shape, 6.0, 0)
    trials = SeparationTrials(dataset, frozenset({"c0"}))
    case = trials.begin(
        tmp_path / "v" / "c0.png", SimpleNamespace(record=flat_record(truth.shape), slice_axis=None), SimpleNamespace()
    )
    case.keep_logits(0, logits_of(truth, offsets or ()))
    case(DecidedSlab(0, (truth > 0).astype(np.uint8), np.stack([truth == 0, truth > 0]).astype(np.float32)))
    case.write()
    rows = json.loads((tmp_path / "v" / "separation" / "c0.json").read_text())
    tried = [row for row in rows if row["method"] == "mutex"]
    assert [row["min_size"] for row in tried] == (list(SIZES) if offsets == FLAT else [])
    if tried:
        decided = reference != UNLABELLED
        counts = match_instances(truth, np.where(decided, reference, 0), decided)
        assert (tuple(tried[0]["matched"]), tried[0]["n_pred"]) == (counts.matched, counts.n_predicted)


def test_a_trial_counts_what_each_setting_matches_where_the_reference_decides(tmp_path):
    dataset = Dataset.load(write_objects(tmp_path / "d", n_cases=2, n_test=0))
    reference, _ = read_labels(dataset.case("c0").label)
    truth = draw_objects(reference.shape, 6.0, 0)
    row = flat_record(reference.shape)
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
