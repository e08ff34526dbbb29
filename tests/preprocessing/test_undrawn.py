"""The code of unannotated voxels is carried from the files on: a drawn set never gives way as if unannotated."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from autoseg.augmentation.recipes import nnunet_recipe
from autoseg.cases.cache import CaseCache, cached_source, open_case, read_entry
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import write_labels
from autoseg.nn.losses.deep_supervision import code_pyramid
from autoseg.preprocessing.runner import preprocess_dataset, stale_cases
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.loader import make_loader
from autoseg.training.evidence.drawn import drawn_evidence

NAMES = ("background", "front", "back", "spot")
K = len(NAMES)
SET_VALUE = 9
WITH_IGNORE = {name: value for value, name in enumerate(NAMES)} | {"ignore": K}


def noise(shape, n_values, seed=0):
    """Blocks of two voxels with values below ``n_values``, so that nearly every place is contested."""
    coarse = np.random.default_rng(seed).integers(0, n_values, [-(-edge // 2) for edge in shape])
    grown = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    return grown[tuple(map(slice, shape))].astype(np.uint8)


def write_dataset(folder, drawn, *, coarse, **keys):
    """Write a case in which the files' value 3 is the class "spot" or, with ``coarse``, a set of other classes."""
    geometry = Geometry(spacing=(2.0, 1.0, 1.0))
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    stored = np.where((drawn == 3) & bool(coarse), SET_VALUE, drawn).astype(np.uint8)
    image = (1 + np.arange(drawn.size).reshape(drawn.shape) % 7).astype(np.uint8)
    write_labels(folder / "imagesTr" / "a_0000.nii.gz", image, geometry)
    write_labels(folder / "labelsTr" / "a.nii.gz", stored, geometry)
    content = {
        "channel_names": {"0": "MR"}, "labels": {name: value for value, name in enumerate(NAMES)},
        "numTraining": 1, "file_ending": ".nii.gz", "label_sets": {str(SET_VALUE): coarse} if coarse else {}, **keys,
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    return Dataset.load(folder)


def prepared(tmp_path, make_plan, name, drawn, coarse, **keys):
    dataset = write_dataset(tmp_path / name, drawn, coarse=coarse, **keys)
    plan = make_plan(spacing=(2.0, 1.0, 1.0))
    assert not preprocess_dataset(dataset, plan, "3d_fullres", tmp_path / f"{name}_cache").failed
    return dataset, plan, tmp_path / f"{name}_cache"


def batches(dataset, cache, configuration, forced_fraction=0.0, n=3):
    return list(
        make_loader(
            [cached_source(cache, "a")],
            configuration,
            SamplingConfig(forced_fraction=forced_fraction),
            nnunet_recipe(configuration),
            labels=dataset.labels,
            start=0,
            stop=n,
            seed=3,
        )
    )


@pytest.mark.parametrize("patch", [(20, 20), (8, 16, 16)], ids=["2d", "3d"])
@pytest.mark.parametrize("coarse", [["background", "front"], ["background", "front", "back"]], ids=["two", "three"])
def test_a_drawn_set_is_moved_as_a_class_is(tmp_path, make_plan, patch, coarse):
    """Every voxel is annotated. The set holds all others of the case, yet has its votes as any class would."""
    labels = noise((8, 24, 24), 4)
    labels[labels == 2] = 0 if len(coarse) == 2 else 2
    sets, plan, set_cache = prepared(tmp_path, make_plan, "sets", labels, coarse)
    classes, _, class_cache = prepared(tmp_path, make_plan, "classes", labels, None, labels=WITH_IGNORE)
    entry = open_case(set_cache, "a").entry
    assert entry.undrawn == K
    code = K + 1
    assert entry.code_counts[code] == (labels == 3).sum()

    name = "2d" if len(patch) == 2 else "3d_fullres"
    configuration = plan.configuration(name).model_copy(update={"patch_size": patch, "batch_size": 2})
    found = batches(sets, set_cache, configuration)
    expected = batches(classes, class_cache, configuration)
    for one, other in zip(found, expected, strict=True):
        assert one.table.undrawn.tolist() == other.table.undrawn.tolist() == [K] * len(one.codes)
        assert torch.equal(torch.where(one.codes == code, 3, one.codes), other.codes) and (other.codes == 3).any()
        strides = [(1,) * (len(patch) - 1) + (2,), (2,) * len(patch)]
        table = drawn_evidence(one).table
        levels = code_pyramid(one.codes, table.drawn, strides, K, table.undrawn)
        for stride, coarse_codes in zip(strides, levels, strict=True):
            picked = one.codes[(slice(None), *(slice(step // 2, None, step) for step in stride))]
            known = picked != K
            assert torch.equal(coarse_codes[known], picked[known])  # a cell whose centre was drawn keeps that


@pytest.mark.parametrize("patch", [(16, 16), (8, 16, 16)], ids=["2d", "3d"])
def test_drawn_voxels_have_no_rival_beyond_the_border_though_a_class_is_absent(tmp_path, make_plan, patch):
    """Where an absence is stated unannotated voxels have a code of their own; padding still knows nothing."""
    labels = np.full((8, 16, 16), 4, dtype=np.uint8)
    labels[:, 0], labels[:, -1], labels[:, :, 0] = 0, 1, 1  # scribbles along the border
    plain, plan, plain_cache = prepared(tmp_path, make_plan, "plain", labels, None, labels=WITH_IGNORE)
    statement = {"a": {"absent": ["spot"]}}
    absent, _, absent_cache = prepared(tmp_path, make_plan, "absent", labels, None, labels=WITH_IGNORE, cases=statement)
    undrawn = read_entry(absent_cache, "a").undrawn
    assert undrawn == K + 1 and read_entry(plain_cache, "a").undrawn == K
    name = "2d" if len(patch) == 2 else "3d_fullres"
    configuration = plan.configuration(name).model_copy(update={"patch_size": patch, "batch_size": 2})
    sources = ((plain, plain_cache), (absent, absent_cache))
    pairs = zip(*(batches(dataset, cache, configuration, 1.0) for dataset, cache in sources), strict=True)
    for one, other in pairs:
        assert other.table.undrawn.tolist() == [undrawn] * len(other.codes)
        assert torch.equal(one.codes, torch.where(other.codes == undrawn, K, other.codes))
        assert (one.codes < 2).any()


def test_a_cache_that_does_not_say_it_is_redone_and_only_that(tmp_path, make_plan):
    dataset, plan, cache = prepared(tmp_path, make_plan, "sets", noise((4, 8, 8), 4), ["background", "front"])
    assert stale_cases(dataset, plan, "3d_fullres", CaseCache.read(cache, ["a"]), ["a"]) == {}
    path = cache / "a.json"
    content = json.loads(path.read_text())
    del content["undrawn"]
    path.write_text(json.dumps(content))
    assert stale_cases(dataset, plan, "3d_fullres", CaseCache.read(cache, ["a"]), ["a"]) == {
        "a": "written by another version of autoseg"
    }
    assert preprocess_dataset(dataset, plan, "3d_fullres", cache).done == ("a",)
    assert read_entry(cache, "a").undrawn == K
