"""Batches of the recipe em: aligned, the same however they are built, and unknown where nothing is known."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from autoseg.augmentation.copy_paste import CopyPaste
from autoseg.augmentation.em import EmOperations
from autoseg.augmentation.flip import Flip
from autoseg.augmentation.misalignment import MisAlignment
from autoseg.augmentation.missing_section import MissingSection
from autoseg.augmentation.recipes import Recipe, em_recipe
from autoseg.augmentation.turn import Turn
from autoseg.cases.cache import cached_source
from autoseg.core.errors import ConfigError
from autoseg.core.ranks import Ranks
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.loader import make_loader

PATCHES = pytest.mark.parametrize("patch", [(12, 12), (5, 12, 12)], ids=["2d", "3d"])


@pytest.fixture
def batches(write, make_labels, make_configuration, tmp_path):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        codes = np.full((9, 26, 24), 3, np.uint8)
        codes[:, 4:20, 3:18] = rng.integers(0, 3, (9, 4, 5)).repeat(4, 1).repeat(3, 2)
        write(f"case{seed}", codes)

    def make(patch, recipe=None, **options):
        configuration = make_configuration(patch, batch_size=4)
        loader = make_loader(
            [cached_source(tmp_path, f"case{seed}") for seed in range(2)], configuration, SamplingConfig(),
            em_recipe(configuration) if recipe is None else recipe, labels=make_labels(), start=0, stop=4, seed=3,
            **options,
        )  # fmt: skip
        return list(islice(loader, 4))

    return make


@PATCHES
def test_batches_are_the_same_on_a_device_that_moves_and_augments(batches, patch):
    for one, other in zip(batches(patch), batches(patch, device=torch.device("cpu")), strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.codes, other.codes)


@PATCHES
def test_the_shares_of_ranks_are_together_the_batch_of_one_process(batches, patch):
    shares = zip(*(batches(patch, ranks=Ranks(rank, 2)) for rank in range(2)), strict=True)
    for whole, parts in zip(batches(patch), shares, strict=True):
        assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
        assert torch.equal(whole.codes, torch.cat([part.codes for part in parts]))


@PATCHES
def test_where_voxels_are_copied_labels_equal_the_image_and_what_enters_is_unknown(batches, patch):
    recipe = Recipe((Turn(), Flip(), MissingSection(), MisAlignment(displacement=8, rotate_ratio=0)))
    n_outside = 0
    for batch in batches(patch, recipe):
        differs = batch.images[:, 0] != batch.codes
        n_outside += int(differs.sum())
        assert (batch.images[:, 0][differs] == 0).all() and (batch.codes[differs] == 3).all()
    assert (n_outside > 0) == (len(patch) == 3)


def test_pasted_objects_take_their_codes_with_them(batches):
    recipe = Recipe((CopyPaste(probability=1, aug_thres=1),))
    n_pasted = 0
    for plain, pasted in zip(batches((5, 12, 12), Recipe(())), batches((5, 12, 12), recipe), strict=True):
        differs = plain.codes != pasted.codes
        n_pasted += int(differs.sum())
        assert set(pasted.codes[differs].tolist()) <= {1, 2}
        assert torch.equal(plain.images[:, 0][~differs], pasted.images[:, 0][~differs])
    assert n_pasted


def test_origins_name_the_sections_that_moved(batches):
    origins = [origin for batch in batches((5, 12, 12)) for origin in batch.origins]
    assert any(origin.sections for origin in origins) and any(origin.order for origin in origins)


def test_operations_are_built_as_the_settings_say(make_configuration):
    names = [type(one).__name__ for one in em_recipe(make_configuration((5, 12, 12))).operations]
    assert names == [
        "Turn", "Rescale", "Flip", "Elastic", "MissingSection", "MisAlignment", "CutNoise", "CutBlur", "MotionBlur",
        "MissingParts", "Grayscale",
    ]  # fmt: skip
    flat = em_recipe(make_configuration((12, 12)))
    assert [type(one).__name__ for one in flat.operations] == [*names[:4], *names[6:]]
    assert flat.mirror_axes == (0, 1) and em_recipe(make_configuration((5, 12, 12))).mirror_axes == (0, 1, 2)
    some = EmOperations.model_validate({"flip": {"enabled": False}, "mixup": {"enabled": True}})
    chosen = [type(one).__name__ for one in em_recipe(make_configuration((12, 12)), some).operations]
    assert "Flip" not in chosen and chosen[-1] == "Mixup"


def test_a_transposition_of_sections_needs_a_cube(make_configuration):
    cubic = EmOperations.model_validate({"flip": {"z_transpose": True}})
    assert em_recipe(make_configuration((12, 12, 12)), cubic).operations
    with pytest.raises(ConfigError, match="the patch has 5 x 12 x 12 voxels"):
        em_recipe(make_configuration((5, 12, 12)), cubic)
