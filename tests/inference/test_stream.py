"""Logits come slab by slab, as soon as no later window covers them; constant windows are seen by networks once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from test_window import DIMENSIONS, Fixed, configuration, convolution, random_image
from torch import nn

from autoseg.core.errors import ConfigError, ModelError
from autoseg.inference import window_contents
from autoseg.inference.ensemble import Ensemble, mirrorings
from autoseg.inference.plane_sums import PlaneSums
from autoseg.inference.window import predict_logits, stream_logits, window_positions

CPU = torch.device("cpu")


class Counting(nn.Module):
    """Remembers the patches that its network saw."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.batches = []

    def forward(self, images):
        self.batches.append(images.clone())
        return self.network(images)

    @property
    def n_patches(self):
        return sum(map(len, self.batches))


def whole(network, image, settings, **options):
    """The definition: every window on its own, all sums at full size."""
    patch = settings.patch_size
    shape = image.shape[1:]
    members = [network] if isinstance(network, nn.Module) else network
    low = [(max(size, edge) - size) // 2 for size, edge in zip(shape[-len(patch) :], patch, strict=True)]
    high = [max(edge - size, 0) - before for size, edge, before in zip(shape[-len(patch) :], patch, low, strict=True)]
    padding = [(0, 0)] * (4 - len(patch)) + list(zip(low, [max(0, extra) for extra in high], strict=True))
    padded = torch.from_numpy(np.pad(image, padding))
    grid = [
        window_positions(size, edge, options.get("step", 0.5))
        for size, edge in zip(padded.shape[-len(patch) :], patch, strict=True)
    ]
    importance = torch.ones(patch)
    for axis, edge in enumerate(patch):
        offset = (torch.arange(edge) - edge // 2) / (edge / 8)
        importance *= (
            torch.exp(-0.5 * offset.double() ** 2).float().view([-1 if n == axis else 1 for n in range(len(patch))])
        )
    total, weights = None, torch.zeros(padded.shape[1:])
    planes = range(shape[0]) if len(patch) == 2 else [None]
    for plane, corner in itertools.product(planes, itertools.product(*grid)):
        inside = tuple(slice(first, first + edge) for first, edge in zip(corner, patch, strict=True))
        index = inside if plane is None else (plane, *inside)
        copies = []
        for axes in mirrorings(options.get("mirror_axes", ())):
            content = padded[(slice(None), *index)][None]
            copies += [member(content.flip(axes)).flip(axes)[0] for member in members]
        logits = torch.stack(copies).mean(0)
        total = torch.zeros(len(logits), *padded.shape[1:]) if total is None else total
        total[(slice(None), *index)] += importance * logits
        weights[index] += importance
    cut = [slice(before, before + size) for before, size in zip(low, shape[-len(patch) :], strict=True)]
    return (total / weights)[(..., *cut)].numpy()


@DIMENSIONS
@pytest.mark.parametrize("step", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("slab_values", [1, 400, 10**9])
@pytest.mark.parametrize("size", ["several patches", "smaller along one axis", "smaller along all"])
def test_slabs_are_the_whole_in_order(shape, patch, step, slab_values, size):
    shape = {"several patches": shape, "smaller along one axis": (shape[0], shape[1], 5)}.get(size, (shape[0], 3, 5))
    if size == "smaller along all" and len(patch) == 3:
        shape = (4, 3, 5)
    image, settings = random_image(shape), configuration(patch)
    networks = [convolution(len(patch), 3), convolution(len(patch), 1)]
    axes = tuple(range(len(patch)))
    expected = whole(networks, image, settings, step=step, mirror_axes=axes)
    planes = 0
    for first, slab in stream_logits(
        networks, image, settings, step=step, mirror_axes=axes, slab_values=slab_values, batch_size=3
    ):
        assert first == planes
        assert slab.dtype == np.float32
        planes += slab.shape[1]
        np.testing.assert_allclose(slab, expected[:, first:planes], rtol=1e-4, atol=1e-5)
    assert planes == shape[0]
    joined = predict_logits(networks, image, settings, step=step, mirror_axes=axes)
    np.testing.assert_allclose(joined, expected, rtol=1e-4, atol=1e-5)


@DIMENSIONS
def test_a_slab_does_not_depend_on_how_many_planes_it_has(shape, patch):
    image, settings, network = random_image(shape), configuration(patch), convolution(len(patch), 3)
    expected = predict_logits(network, image, settings)
    for slab_values in (1, 500, 2000):
        slabs = [slab for _, slab in stream_logits(network, image, settings, slab_values=slab_values)]
        np.testing.assert_array_equal(np.concatenate(slabs, axis=1), expected)


@pytest.mark.parametrize(("patch", "first"), [((4, 8, 8), 4), ((8, 8), 1)], ids=["3d", "2d"])
def test_planes_come_before_later_windows_are_computed(patch, first):
    """Windows of 4 planes begin at 0, 2, 4 ...: with the first of those at 2, the planes 0 and 1 are finished."""
    seen = []
    slabs = stream_logits(
        Fixed(1.0),
        random_image((12, 12, 8)),
        configuration(patch),
        batch_size=1,
        progress=lambda *news: seen.append(news[:2]),
    )
    start, slab = next(slabs)
    per_layer = 2
    assert (start, slab.shape[1]) == (0, 2 if len(patch) == 3 else 1)
    assert seen[-1][0] <= per_layer + 1
    assert seen[-1][1] == per_layer * (5 if len(patch) == 3 else 12)


def test_leaving_a_stream_in_the_middle_leaves_no_mode_behind():
    for _ in stream_logits(Fixed(1.0), random_image((9, 8, 8)), configuration((4, 8, 8))):
        assert not torch.is_inference_mode_enabled()
        break
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("networks", "image", "options", "error"),
    [
        (Fixed(1.0), (4, 8, 8), {"step": 2.0}, ConfigError),
        ([], (4, 8, 8), {}, ModelError),
        (Fixed(1.0), (4, 0, 8), {}, ModelError),
        (Fixed(1.0), (0, 8, 8), {}, ModelError),
    ],
    ids=["step", "no network", "no row", "no plane"],
)
def test_what_is_wrong_is_said_before_the_first_slab(networks, image, options, error):
    with pytest.raises(error):
        stream_logits(networks, random_image(image), configuration((4, 8, 8)), **options)


def test_sums_are_as_deep_as_a_window_and_weighted_as_they_leave():
    """Windows of 3 planes of ones at 0, 2 and 4: planes 2 and 4 are covered twice."""
    weights = [torch.tensor([1, 1, 0.5, 1, 0.5, 1, 10.0]), torch.ones(2), torch.tensor([1.0, 2.0])]
    sums = PlaneSums((1, 3, 2, 2), weights, CPU)
    taken = []
    for first in (0, 2, 4):
        taken += sums.take(first, 4)
        sums.add((first, 0, 0), torch.ones(1, 3, 2, 2))
        assert sums._sums.shape == (1, 3, 2, 2)
    taken += sums.take(7, 4)
    assert [first for first, _ in taken] == list(range(7))
    assert [planes[0, 0, 0, 0].item() for _, planes in taken] == [1, 1, 1, 1, 1, 1, 10]
    assert all(torch.equal(planes[..., 1], 2 * planes[..., 0]) for _, planes in taken)


@pytest.mark.parametrize("per_slab", [1, 8, 12, 10**6])
def test_planes_leave_in_portions_in_order(per_slab):
    generator = torch.Generator().manual_seed(0)
    sums = PlaneSums((1, 5, 2, 2), [torch.ones(11, dtype=torch.float64), torch.ones(2), torch.ones(2)], CPU)
    windows = {first: torch.rand(1, 5, 2, 2, generator=generator) for first in (0, 3, 6)}
    expected = torch.zeros(1, 11, 2, 2)
    taken = []
    for first, window in windows.items():
        expected[:, first : first + 5] += window
        taken += [planes for _, planes in sums.take(first, per_slab)]
        sums.add((first, 0, 0), window)
    taken += [planes for _, planes in sums.take(11, per_slab)]
    assert torch.equal(torch.cat(taken, 1), expected)
    assert all(planes.numel() <= max(4, per_slab) for planes in taken)


def in_air(shape, n_channels=2, air=(-1.5, 0.25)):
    """Noise in the middle third of every axis, each channel's own constant around it."""
    image = np.empty((n_channels, *shape), np.float32)
    image[:] = np.asarray(air[:n_channels], np.float32).reshape(-1, 1, 1, 1)
    body = tuple(slice(size // 3, 2 * size // 3) for size in shape)
    image[(slice(None), *body)] = random_image(shape, n_channels)[(slice(None), *body)]
    return image


AIR = pytest.mark.parametrize(("shape", "patch"), [((5, 27, 24), (6, 5)), ((13, 18, 15), (4, 4, 4))], ids=["2d", "3d"])


@pytest.mark.slow
@AIR
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_constant_window_seen_before_has_the_logits_it_had(shape, patch, autocast, batch_size, monkeypatch):
    """On an ensemble with mirroring, against every window on its own: not a bit differs, fewer patches are computed."""
    image, settings = in_air(shape), configuration(patch)
    options = {"mirror_axes": tuple(range(len(patch))), "autocast_dtype": autocast, "batch_size": batch_size}
    counting = Counting(convolution(len(patch), 3))
    networks = [counting, convolution(len(patch), 1), convolution(len(patch), 5)]
    quick = predict_logits(networks, image, settings, **options)
    n_quick = counting.n_patches
    monkeypatch.setattr(window_contents, "_constant_values", lambda voxels: None)
    counting.batches.clear()
    slow = predict_logits(networks, image, settings, **options)
    n_mirrorings = 2 ** len(patch)
    assert n_quick < 0.7 * counting.n_patches
    assert counting.n_patches % n_mirrorings == 0
    if batch_size == 1:
        np.testing.assert_array_equal(quick, slow)
    np.testing.assert_allclose(quick, slow, atol=1e-6 if autocast is None else 1e-2)
    np.testing.assert_array_equal(quick.argmax(0), slow.argmax(0))


@AIR
def test_batches_stay_full_where_windows_are_left_out(shape, patch):
    counting = Counting(convolution(len(patch), 1))
    predict_logits(counting, in_air(shape), configuration(patch), batch_size=4)
    sizes = [len(batch) for batch in counting.batches]
    assert set(sizes[:-1]) == {4}
    assert 1 <= sizes[-1] <= 4


def test_windows_that_are_constant_in_some_channels_only_are_computed():
    image = random_image((4, 8, 64))
    image[0] = 3.0
    counting = Counting(convolution(2, 1))
    predict_logits(counting, image, configuration((8, 8)), batch_size=1)
    assert counting.n_patches == 4 * 15


def test_each_constant_has_its_own_logits():
    """Two constants side by side, then the first again: only the last is remembered."""
    image = np.zeros((1, 1, 8, 96), np.float32)
    image[..., 32:64] = 7.0
    counting = Counting(nn.Identity())
    logits = predict_logits(counting, image, configuration((8, 8)), batch_size=1, step=1.0)
    np.testing.assert_allclose(logits, image, rtol=1e-6)
    values = [batch.flatten()[0].item() for batch in counting.batches]
    assert values == [0, 7, 0]


def test_a_voxel_that_differs_is_found_wherever_it_lies():
    for place in itertools.product(range(3), range(4), range(5)):
        image = np.zeros((1, 3, 4, 10), np.float32)
        image[(0, *place)] = 1.0
        logits = predict_logits(nn.Identity(), image, configuration((3, 4, 5)), step=1.0)
        np.testing.assert_allclose(logits, image, rtol=1e-6)


def test_an_image_of_nothing_but_air_is_computed_once():
    seen = []
    counting = Counting(convolution(3, 3))
    image = np.full((2, 30, 20, 20), -1.0, np.float32)
    logits = predict_logits(
        counting, image, configuration((6, 8, 8)), batch_size=2, progress=lambda *news: seen.append(news[:2])
    )
    assert counting.n_patches == 1
    assert logits.shape == (3, 30, 20, 20)
    assert seen[-1] == (9 * 4 * 4, 9 * 4 * 4)


class OverflowsAbove(nn.Module):
    """Infinite in mixed precision where a patch holds a number above 10; else the number of the patch in its batch."""

    def forward(self, images):
        self.last = len(images)
        values = images[:, :1].clone()
        if torch.is_autocast_enabled("cpu"):
            values[images.flatten(1).amax(1) > 10] = torch.inf
        return values


def test_only_the_patches_that_overflow_are_computed_again():
    network = OverflowsAbove()
    ensemble = Ensemble((network,), ((),), CPU, torch.bfloat16)
    patches = torch.full((3, 1, 4, 4), 2.0)
    patches[1] = 20.0
    with torch.inference_mode():
        assert torch.equal(ensemble(patches), patches)
    assert network.last == 1


class TooLarge(nn.Module):
    """Needs more memory than there is for more than ``most`` patches; remembers the sizes of batches that fitted."""

    def __init__(self, most):
        super().__init__()
        self.most, self.sizes = most, []

    def forward(self, images):
        if len(images) > self.most:
            raise torch.cuda.OutOfMemoryError
        self.sizes.append(len(images))
        return 2 * images


def test_patches_that_need_too_much_memory_together_are_computed_in_parts():
    network, patches = TooLarge(2), torch.arange(7.0 * 4).view(7, 1, 2, 2)
    with torch.inference_mode():
        assert torch.equal(Ensemble((network,), ((),), CPU)(patches), 2 * patches)
    assert network.sizes == [1, 2, 2, 2]
    with torch.inference_mode(), pytest.raises(torch.cuda.OutOfMemoryError):
        Ensemble((TooLarge(0),), ((),), CPU)(patches)


def test_an_ensemble_is_summed_over_members_and_mirrored_copies():
    patches = torch.arange(8.0).view(1, 1, 2, 4)
    ensemble = Ensemble((Fixed(1.0, -2.0), Fixed(5.0, 1.0), Fixed(0.0, 4.0)), mirrorings((0, 1)), CPU)
    total = ensemble(patches)
    assert ensemble.n_copies == 12
    assert mirrorings((0, 1)) == ((), (2,), (3,), (2, 3))
    assert (total[:, 0] == 4 * 6).all()
    assert (total[:, 1] == 4 * 3).all()


@DIMENSIONS
def test_networks_that_hand_their_input_on_do_no_harm(shape, patch):
    image, axes = random_image(shape), tuple(range(len(patch)))
    logits = predict_logits([nn.Identity()] * 3, image, configuration(patch), mirror_axes=axes)
    np.testing.assert_allclose(logits, image, rtol=1e-5, atol=1e-6)
