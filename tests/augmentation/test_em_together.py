"""Operations on whole batches: the pasted object takes its codes with it, a mixed patch keeps the major one's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoseg.augmentation.copy_paste import CopyPaste, dilated
from autoseg.augmentation.mixup import Mixup
from autoseg.augmentation.patches import Patches
from autoseg.augmentation.recipes import Recipe, augment_together_
from autoseg.core.errors import ConfigError

UNKNOWN = 7
SHAPES = pytest.mark.parametrize("shape", [(40, 40), (5, 40, 40)], ids=["2d", "3d"])


def batch(shape, *, samples: int = 2) -> Patches:
    """Patches in which intensity equals code: an object of codes 1 and 2, unknown voxels, background."""
    codes = torch.zeros(samples, *shape, dtype=torch.int32)
    codes[..., 4:10, 6:20] = 1
    codes[..., 6:8, 8:15] = 2
    codes[..., 25:, 25:] = UNKNOWN
    images = torch.stack([codes.float(), -codes.float()], 1)
    return Patches(images, codes, (codes == 1) | (codes == 2), {"ids": codes.clone()})


def changed(operation, patches: Patches, seed: int = 0) -> Patches:
    copy = Patches(
        patches.images.clone(), patches.codes.clone(), patches.foreground,
        {name: layer.clone() for name, layer in patches.layers.items()},
    )  # fmt: skip
    generators = [torch.Generator().manual_seed(seed + sample) for sample in range(len(patches.images))]
    augment_together_(copy, Recipe((operation,)), generators)
    return copy


@SHAPES
def test_an_object_is_pasted_once_with_its_codes_and_layers(shape):
    before = batch(shape)
    after = changed(CopyPaste(probability=1), before)
    pasted = after.codes != before.codes
    assert pasted.any()
    assert torch.equal(after.codes, after.layers["ids"])
    assert set(after.codes[pasted].tolist()) == {1, 2}
    assert 0.8 < float(pasted[0].sum() / before.foreground[0].sum()) < 1.2
    inner = after.codes[:, None].float()  # intensities differ from codes only where they are interpolated
    assert (after.images[:, :1] - inner).abs()[:, 0][pasted].median() < 0.01
    assert torch.equal(after.images[:, 0], -after.images[:, 1])


@SHAPES
def test_nothing_is_pasted_on_the_original_or_around_it_and_nothing_else_changes(shape):
    before = batch(shape)
    after = changed(CopyPaste(probability=1), before)
    for sample in range(2):
        pasted = after.codes[sample] != before.codes[sample]
        assert not (pasted & dilated(before.foreground[sample], 3)).any()
        assert torch.equal(after.images[sample][:, ~pasted], before.images[sample][:, ~pasted])
    assert not ((after.codes == UNKNOWN) & (before.codes != UNKNOWN)).any()  # nothing unknown is copied


@SHAPES
def test_a_pasted_object_is_another_object(shape):
    before = batch(shape)
    largest = 2**31 - 1
    numbers = torch.where(before.foreground, largest, torch.where(before.codes == UNKNOWN, -1, 0)).int()
    objects = numbers.clone()
    patches = Patches(before.images.clone(), before.codes.clone(), before.foreground, objects=objects)
    augment_together_(patches, Recipe((CopyPaste(probability=1),)), [torch.Generator().manual_seed(n) for n in (0, 1)])
    pasted = patches.codes != before.codes
    assert pasted.any()
    assert objects[pasted].unique().tolist() == [2]
    assert objects[before.foreground].unique().tolist() == [1]
    assert torch.equal(objects[~pasted & ~before.foreground], numbers[~pasted & ~before.foreground])


def test_patches_without_foreground_or_with_much_stay():
    nothing = Patches(torch.rand(1, 1, 12, 12), torch.zeros(1, 12, 12), torch.zeros(1, 12, 12, dtype=torch.bool))
    full = Patches(torch.rand(1, 1, 12, 12), torch.ones(1, 12, 12), torch.ones(1, 12, 12, dtype=torch.bool))
    for patches in (nothing, full):
        assert torch.equal(changed(CopyPaste(probability=1), patches).images, patches.images)
    assert torch.equal(changed(CopyPaste(probability=0), batch((40, 40))).images, batch((40, 40)).images)


def test_a_dilation_grows_along_axes():
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[4, 4] = True
    rows, columns = np.mgrid[:9, :9] - 4
    assert np.array_equal(dilated(mask, 3).numpy(), abs(rows) + abs(columns) <= 3)


def test_mixup_adds_another_patch_and_keeps_the_labels():
    before = batch((8, 8), samples=5)
    before.images.copy_(torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(0)))
    ratios = []
    for seed in range(40):
        after = changed(Mixup(num_aug=2), before, seed)
        mixed = [n for n in range(5) if not torch.equal(after.images[n], before.images[n])]
        assert len(mixed) == 2 and torch.equal(after.codes, before.codes)
        for n in mixed:
            others = torch.stack([before.images[m].flatten() for m in range(5) if m != n])
            unmixed = torch.linalg.lstsq(
                torch.cat([before.images[n].flatten()[None], others]).T, after.images[n].flatten()[:, None]
            ).solution[:, 0]
            ratios.append(float(unmixed[0]))
            assert sorted(unmixed[1:].tolist())[-1] == pytest.approx(1 - ratios[-1], abs=1e-3)
            assert sorted(unmixed[1:].abs().tolist())[-2] < 1e-3
    assert 0.7 <= min(ratios) < 0.75 and 0.85 < max(ratios) <= 0.9


def test_a_batch_with_one_patch_is_not_mixed():
    before = batch((8, 8), samples=1)
    assert torch.equal(changed(Mixup(), before).images, before.images)


def test_an_operation_that_returns_patches_is_refused():
    class Returning:
        def change_patches_(self, patches, generators):
            return patches

    with pytest.raises(ConfigError, match="expected the tensors of the patches to be changed in place"):
        changed(Returning(), batch((8, 8)))
