from __future__ import annotations

import numpy as np
import pytest
import torch

from autoseg.core.means import mean_known
from autoseg.dataset.labels import Head, Labels, painting_of
from autoseg.tasks.dice import dice_per_head
from autoseg.training.metrics import count_heads, painted_classes, smooth

SETS = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=torch.bool)  # codes 0..4


def logits_for(winners: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(winners, 3).movedim(-1, 1).float()


def test_counts_by_hand_with_unknown_and_partly_known_voxels():
    codes = torch.tensor([[0, 1, 2, 3, 4, 1]])
    winners = torch.tensor([[0, 1, 1, 1, 0, 2]])
    counts = count_heads(logits_for(winners), codes, SETS[None], None)
    # class 0: voxel 0 right; voxel 4 may be 1 or 2, so "0" is wrong.
    # class 1: voxel 1 right, voxel 2 wrongly so, voxel 5 missed. class 2: voxel 2 missed, voxel 5 wrongly so
    assert counts.tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]


@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 5)], ids=["2d", "3d"])
@pytest.mark.parametrize("has_regions", [False, True])
def test_what_is_predicted_where_nothing_is_known_does_not_count(shape, has_regions):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 5, (2, *shape), generator=generator)
    logits = torch.randn(2, 3, *shape, generator=generator)
    regions = torch.tensor([[0, 1, 1], [0, 0, 1], [1, 0, 0]], dtype=torch.bool) if has_regions else None
    sets = SETS.expand(2, -1, -1)
    scrambled = torch.where((codes == 3)[:, None], -logits, logits)
    assert torch.equal(count_heads(logits, codes, sets, regions), count_heads(scrambled, codes, sets, regions))


def test_dice_is_none_where_nothing_was_decided_and_the_smoothed_value_survives():
    assert dice_per_head(torch.tensor([[3, 0], [1, 0], [1, 0]])) == [0.75, None]
    assert mean_known([0.75, None]) == 0.75
    assert mean_known([None]) is None
    assert smooth(None, None) is None
    assert smooth(None, 0.5) == 0.5
    assert smooth(0.5, None) == 0.5
    assert smooth(0.5, 1.0) == pytest.approx(0.55)


@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 5)], ids=["2d", "3d"])
@pytest.mark.parametrize("order", [(3, 2, 1), (1, 2, 3), (3, 3, 3)])
def test_regions_count_as_the_label_map_shows_them(shape, order):
    """Spot, core, whole: the classes are those that a written label map holds, whatever the order loses."""
    regions = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]], dtype=bool)
    heads = tuple(
        Head(str(index), tuple(np.flatnonzero(row)), tuple(np.flatnonzero(row))) for index, row in enumerate(regions)
    )
    labels = Labels((0, 1, 2, 3), ("0", "1", "2", "3"), heads, order)
    painting = painting_of(labels)
    assert painting is not None
    logits = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    shown = labels.decode(logits)
    np.testing.assert_array_equal(painted_classes(torch.from_numpy(logits)[None], painting)[0].numpy(), shown)
    truth = np.random.default_rng(1).integers(0, 4, shape)
    sets = torch.cat((torch.eye(4, dtype=torch.bool), torch.ones(1, 4, dtype=torch.bool)))[None]
    counts = count_heads(
        torch.from_numpy(logits)[None], torch.from_numpy(truth)[None], sets, torch.from_numpy(regions), painting
    )
    for index, row in enumerate(regions):
        true, said = row[truth], row[shown]
        assert counts[:, index].tolist() == [(true & said).sum(), (~true & said).sum(), (true & ~said).sum()]
