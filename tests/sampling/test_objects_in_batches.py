"""Numbers of objects from the label file to the target of a batch: they stay with their voxels, and stay apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from moving import moving
from objects import UNLABELLED, draw_objects, image_of

from autoseg import Dataset
from autoseg.cases.cache import CaseCache, open_case
from autoseg.cases.layers import OBJECTS, target_layers
from autoseg.core.boxes import Box
from autoseg.core.geometry import Geometry
from autoseg.core.plan import Configuration, Plan
from autoseg.io.images import write_labels
from autoseg.planning import extract_fingerprint, plan
from autoseg.preprocessing.runner import preprocess_dataset
from autoseg.sampling.batch import Batch
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.loader import make_loader
from autoseg.tasks.task import task_of
from autoseg.training.evidence.drawn import drawn_evidence
from autoseg.training.objective import Objective

PATCH = (8, 24, 24)
CONTENT = """{"channel_names": {"0": "a"}, "task": "instances", "labels": {"background": 0, "cell": 1},
"unlabelled": 65535, "numTraining": 1, "file_ending": ".nii.gz"}"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[Dataset, Plan, CaseCache]:
    """One case of 12 x 40 x 40 voxels, twice as large as the plan's, with numbers up to 80,000."""
    root = tmp_path_factory.mktemp("objects")
    folder = root / "Dataset001_Cells"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    objects = draw_objects((12, 40, 40), 5.0, 3).astype(np.uint32)
    image = image_of(objects, 3)
    objects[objects > 0] += 80_000 - objects.max()
    objects[:, :, 30:] = UNLABELLED
    geometry = Geometry(spacing=(1.0, 1.0, 1.0))
    write_labels(folder / "imagesTr" / "a_0000.nii.gz", image, geometry)
    write_labels(folder / "labelsTr" / "a.nii.gz", objects, geometry)
    (folder / "dataset.json").write_text(CONTENT)
    dataset = Dataset.load(folder)
    planned = plan(dataset, extract_fingerprint(dataset), "small")
    configuration = planned.configurations["3d_fullres"]
    other = configuration.model_copy(update={"patch_size": PATCH, "spacing": (1.0, 0.8, 0.8), "batch_size": 4})
    planned = planned.model_copy(update={"configurations": {"3d_fullres": other}})
    report = preprocess_dataset(dataset, planned, "3d_fullres", root / "cache")
    assert not report.failed
    return dataset, planned, CaseCache.read(root / "cache", ["a"])


def batches(prepared, recipe, n: int = 3) -> list[Batch]:
    dataset, planned, cache = prepared
    configuration: Configuration = planned.configurations["3d_fullres"]
    loader = make_loader(
        [cache.source("a")], configuration, SamplingConfig(), recipe, labels=dataset.labels, start=0, stop=n, seed=0,
        layers=target_layers(dataset.labels),
    )  # fmt: skip
    return list(loader)


def test_the_cache_holds_numbers_where_the_classes_are_foreground(prepared):
    dataset, _, cache = prepared
    case = open_case(cache.folder, "a")
    whole = Box.whole(case.entry.record.shape)
    objects, codes = case.read(OBJECTS, whole), case.read("target", whole)
    assert objects.dtype == np.uint32 and objects.shape == codes.shape == (12, 50, 50)
    assert 79_000 < objects.max() <= 80_000
    assert ((objects > 0) == (codes == 1)).mean() > 0.98  # numbers go to the nearest voxel, codes by a vote
    assert (codes[:, :, 38:] == dataset.labels.unknown).all() and not objects[:, :, 38:].any()


@pytest.mark.parametrize("recipe", [None, moving(180, (0.7, 1.4))], ids=["plain", "moved"])
def test_targets_of_batches_have_boundaries_between_objects_and_none_at_unannotated_voxels(prepared, recipe):
    dataset, *_ = prepared
    objective = Objective(task_of(dataset.labels), torch.device("cpu"))
    n_contacts = n_open = 0
    for batch in batches(prepared, recipe):
        numbers = batch.layers[OBJECTS]
        assert numbers.dtype == torch.int32 and numbers.shape == batch.codes.shape
        evidence = drawn_evidence(batch)
        target = objective.target(evidence)
        for sample in range(len(numbers)):
            allowed = target.table.learnt[sample][target.codes[sample].long()]  # (*P, 3)
            drawn = evidence.table.learnt[sample][evidence.codes[sample].long()]
            cell, unknown = (drawn == torch.tensor([False, True])).all(-1), drawn.all(-1)
            assert torch.equal(allowed[..., 0], drawn[..., 0]) and allowed[unknown].all()
            own = numbers[sample].where(cell, 0)
            for axis in range(3):
                one, other = own.narrow(axis, 0, own.shape[axis] - 1), own.narrow(axis, 1, own.shape[axis] - 1)
                contact = (one != other) & (one > 0) & (other > 0)
                n_contacts += int(contact.sum())
                here = allowed.narrow(axis, 0, own.shape[axis] - 1)[contact]
                assert (here == torch.tensor([False, False, True])).all()
            inside = (allowed == torch.tensor([False, True, False])).all(-1)
            assert cell[inside].all()
            n_open += int((cell & allowed[..., 1] & allowed[..., 2]).sum())
    assert n_contacts > 20 and n_open > 20


def test_held_out_annotation_is_unknown_to_the_target(prepared):
    (batch,) = batches(prepared, None, 1)
    held = replace(batch, table=batch.table._replace(held_out=batch.table.held_out | True))
    objective = Objective(task_of(prepared[0].labels), torch.device("cpu"))
    target = objective.target(drawn_evidence(held))
    assert all(target.table.learnt[i][target.codes[i].long()].all() for i in range(len(batch.codes)))
