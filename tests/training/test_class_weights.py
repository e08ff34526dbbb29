"""Weights of classes in the cross entropy: what users may write, what ``auto`` counts, what a run does with them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from autoseg.cases.case import CaseRecord
from autoseg.cases.entry import CacheEntry
from autoseg.core.errors import ConfigError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.nn.checkpoint import load_checkpoint
from autoseg.tasks.task import task_of
from autoseg.training.class_weights import output_weights
from autoseg.training.config import TrainingConfig, resolve_config
from autoseg.training.fold import train_fold
from autoseg.training.prepare import check_start, prepare_fold
from autoseg.training.run_checkpoints import FINAL
from autoseg.training.run_config import RunOptions


def labels_of(labels, **more):
    content = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".png", **more}
    return Dataset.from_json(content, name="test", folder=None).labels


CLASSES = labels_of({"background": 0, "liver": 1, "tumour": 2})
REGIONS = labels_of({"background": 0, "organ": [1, 2], "tumour": 2}, regions_class_order=[1, 2])


def setting_of(text):
    return resolve_config({}, [f"class_weights={text}"]).config.class_weights


def weights_of(text, entries=(), *, labels=CLASSES, loss="label_sets"):
    return output_weights(setting_of(text), loss, task_of(labels), entries)


def entry(counts):
    """A case whose codes are the three classes, unknown, and "liver or tumour", with so many voxels of each."""
    shape = (1, 1, 1)
    record = CaseRecord(
        case="a", geometry=Geometry(spacing=(1, 1, 1)), transpose=(0, 1, 2), shape_before_crop=shape,
        crop_low=(0, 0, 0), crop_high=shape, spacing_before=(1, 1, 1), spacing=(1, 1, 1), shape=shape,
    )  # fmt: skip
    return CacheEntry(
        record=record, label_sets=((0,), (1,), (2,), (0, 1, 2), (1, 2)), undrawn=3, n_classes=3, locations={},
        code_counts=counts, fingerprint="abc",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1,2,5", (1, 2, 5)), ("tumour=5", (1, 1, 5)), ("tumour=5, background=0.5", (0.5, 1, 5)), ("2,2,2", None),
     ("none", None)],
)  # fmt: skip
def test_weights_are_given_in_order_or_by_name_and_alike_they_are_none(text, expected):
    assert weights_of(text) == expected


def test_regions_have_a_weight_each():
    assert weights_of("tumour=5", labels=REGIONS) == (1, 5)
    assert weights_of("2,3", labels=REGIONS) == (2, 3)


def test_auto_is_inverse_to_the_voxels_that_are_annotated_as_the_class_at_most_tenfold():
    entries = [entry({0: 300, 1: 150, 3: 10_000, 4: 7_000}), entry({0: 300, 2: 10})]
    assert weights_of("auto", entries) == pytest.approx((1, 4, 10))


def test_auto_counts_for_a_region_what_certainly_lies_in_it():
    assert weights_of("auto", [entry({0: 999, 1: 50, 2: 25, 3: 999, 4: 25})], labels=REGIONS) == pytest.approx((1, 4))


def test_auto_leaves_classes_without_a_voxel_at_one():
    assert weights_of("auto", [entry({0: 300, 1: 100, 3: 10})]) == pytest.approx((1, 3, 1))
    assert weights_of("auto", [entry({3: 10})]) is None


@pytest.mark.parametrize("text", ["1,-2,3", "1,x,3", "0,0,0", "liver=1,2", "liver=1,liver=2", "nan,1,1", ""])
def test_other_texts_are_refused_with_what_is_expected(text):
    with pytest.raises(ConfigError, match=r"--set: class_weights = .*expected auto, a number of 0 or more for each"):
        setting_of(text)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("1,2", {}, "found 2 numbers, expected 3, one for each of .*Write for example class_weights=1,1,1"),
        ("tumor=2", {}, "found tumor, expected names of background, liver, tumour.*tumour"),
        ("1,2,3", {"loss": "my.losses:loss"}, "found 1.0,2.0,3.0 with loss 'my.losses:loss', expected loss=label_sets"),
    ],
)
def test_weights_that_do_not_fit_are_refused(text, options, message):
    with pytest.raises(ConfigError, match=message):
        weights_of(text, **options)


@pytest.mark.parametrize("value", ["auto", [1, 2, 5], {"tumour": 5}], ids=str)
def test_weights_come_back_from_the_record_of_a_run(value):
    config = TrainingConfig(class_weights=value)
    assert TrainingConfig.model_validate(json.loads(config.model_dump_json())) == config
    assert resolve_config(config.flat()).config.class_weights == config.class_weights


@pytest.fixture
def request_of(toy_folder, toy_workspace, tmp_path):
    torch.set_num_threads(1)

    def make(name, *settings, run_file=None):
        options = RunOptions(
            "0", iterations=3, settings=("precision=float32", *settings), workers=0, device="cpu", run_file=run_file
        )
        return replace(prepare_fold(toy_workspace, Dataset.load(toy_folder), options), folder=tmp_path / name)

    return make


def trained(request):
    train_fold(request)
    return load_checkpoint(request.folder / FINAL).weights


def test_weights_of_one_change_no_bit_of_a_run_and_others_do(request_of):
    plain, ones, heavy = (
        trained(request_of(name, *settings))
        for name, settings in (("a", ()), ("b", ("class_weights=1,1,1",)), ("c", ("class_weights=bright=5",)))
    )
    assert all(torch.equal(plain[name], ones[name]) for name in plain)
    assert not all(torch.equal(plain[name], heavy[name]) for name in plain)


@pytest.mark.parametrize("line", ["class_weights = {bright = 5}", "[class_weights]\nbright = 5"])
def test_the_file_of_a_run_may_hold_them_as_a_table(request_of, tmp_path, line):
    path = tmp_path / "run.toml"
    path.write_text(line + "\n", encoding="utf-8")
    request = request_of("a", run_file=path)
    assert request.config.class_weights == {"bright": 5}
    assert request.origins["class_weights"] == str(path)
    task = task_of(request.dataset.labels)
    assert output_weights(request.config.class_weights, "label_sets", task, request.train_entries) == (1, 5, 1)


def test_weights_that_do_not_fit_are_refused_before_a_former_run_is_moved(request_of):
    with pytest.raises(ConfigError, match="class_weights: found dark"):
        check_start(request_of("a", "class_weights=dark=2"), resume=False, overwrite=True)
