from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from autoseg.core.errors import ConfigError, ModelError
from autoseg.core.plan import Configuration, Topology
from autoseg.inference.window import default_batch, gaussian_profile, predict_logits, window_grid, window_positions

DIMENSIONS = pytest.mark.parametrize(
    ("shape", "patch"), [((3, 21, 17), (8, 6)), ((11, 9, 13), (6, 4, 8))], ids=["2d", "3d"]
)


def configuration(patch):
    ones = (1,) * len(patch)
    topology = Topology(
        kind="plain",
        features=(4,),
        strides=(ones,),
        kernels=((3,) * len(patch),),
        encoder_blocks=(1,),
        decoder_blocks=(),
    )
    return Configuration(
        name="2d" if len(patch) == 2 else "3d_fullres", spacing=tuple(map(float, ones)), patch_size=patch, batch_size=2,
        median_shape=tuple(map(float, patch)), normalization=("zscore",), use_mask_for_norm=(False,), topology=topology,
        batch_dice=False,
    )  # fmt: skip


def random_image(shape, n_channels=2):
    return np.random.default_rng(0).normal(size=(n_channels, *shape)).astype(np.float32)


def convolution(n_dims, kernel, n_channels=2, n_heads=3):
    torch.manual_seed(0)
    layer = (nn.Conv2d, nn.Conv3d)[n_dims - 2](n_channels, n_heads, kernel, padding=kernel // 2)
    return layer.eval().requires_grad_(False)


class Fixed(nn.Module):
    """Gives the same logits everywhere."""

    def __init__(self, *values):
        super().__init__()
        self.values = values

    def forward(self, images):
        logits = torch.tensor(self.values).view(1, -1, *(1,) * (images.ndim - 2))
        return logits.expand(len(images), -1, *images.shape[2:]).clone()


class Ramp(nn.Module):
    """Its logit is the first coordinate of the patch, whatever the image: not symmetric under mirroring."""

    def forward(self, images):
        shape = [1] * images.ndim
        shape[2] = -1
        ramp = torch.arange(images.shape[2], dtype=torch.float32).view(shape)
        return ramp.expand(len(images), 1, *images.shape[2:]).clone()


@pytest.mark.parametrize(
    ("size", "patch", "expected"),
    [
        (110, 64, (0, 23, 46)),
        (200, 64, (0, 27, 54, 82, 109, 136)),
        (64, 64, (0,)),
        (65, 64, (0, 1)),
        (96, 64, (0, 32)),
    ],
)
def test_positions_are_those_of_nnunet(size, patch, expected):
    assert window_positions(size, patch, 0.5) == expected


@pytest.mark.parametrize("step", [0.3, 0.5, 1.0])
def test_windows_cover_everything_with_steps_no_larger_than_asked(step):
    for size, patch in itertools.product(range(7, 40), (5, 7)):
        positions = window_positions(size, patch, step)
        assert positions[0] == 0
        assert positions[-1] == size - patch
        assert max(np.diff(positions), default=0) <= np.ceil(patch * step)


def test_a_small_image_is_padded_on_both_sides_with_the_odd_voxel_behind():
    grid = window_grid((3, 20), (8, 8), 0.5)
    assert grid.padded == (8, 20)
    assert grid.pad_low == (2, 0)
    assert grid.positions == ((0,), (0, 4, 8, 12))


@pytest.mark.parametrize("edge", [1, 7, 8, 128, 512])
def test_importance_is_positive_and_highest_in_the_centre(edge):
    profile = gaussian_profile(edge)
    assert profile.dtype == torch.float32
    assert profile.argmax() == edge // 2
    assert profile.max() == 1
    assert (profile.double() ** 3).float().min() > 0
    if edge > 1:
        assert profile[edge // 2 - edge // 8].item() == pytest.approx(np.exp(-0.5 * (edge // 8 * 8 / edge) ** 2))


@DIMENSIONS
@pytest.mark.parametrize("mirror", [False, True])
def test_constant_networks_give_constant_logits(shape, patch, mirror):
    axes = tuple(range(len(patch))) if mirror else ()
    logits = predict_logits(Fixed(1.5, -2.0), random_image(shape), configuration(patch), mirror_axes=axes)
    assert logits.shape == (2, *shape)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits[0], 1.5, rtol=1e-6)
    np.testing.assert_allclose(logits[1], -2.0, rtol=1e-6)


@DIMENSIONS
@pytest.mark.parametrize("smaller", [False, True])
def test_a_pointwise_network_gives_what_it_gives_on_the_whole_image(shape, patch, smaller):
    if smaller:
        shape = (shape[0], 3, 5)
    network = convolution(len(patch), 1)
    image = random_image(shape)
    weight, bias = network.weight.reshape(3, 2).numpy(), network.bias.numpy()
    expected = np.einsum("hc,czyx->hzyx", weight, image) + bias[:, None, None, None]
    logits = predict_logits(network, image, configuration(patch), mirror_axes=(0, 1))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@DIMENSIONS
def test_the_result_does_not_depend_on_the_batch_of_windows(shape, patch):
    network = convolution(len(patch), 3)
    image = random_image(shape)
    results = [predict_logits(network, image, configuration(patch), batch_size=size) for size in (1, 3, 1000)]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-5, atol=1e-6)


@DIMENSIONS
def test_overlaps_are_the_gaussian_weighted_mean_of_the_windows(shape, patch):
    """Against the definition: every window on its own, a map of summed weights."""
    network = convolution(len(patch), 3)
    image = random_image(shape)
    grid = [window_positions(size, edge, 0.5) for size, edge in zip(shape[-len(patch) :], patch, strict=True)]
    importance = torch.ones(patch)
    for axis, edge in enumerate(patch):
        importance *= gaussian_profile(edge).view([-1 if index == axis else 1 for index in range(len(patch))])
    total, weights = torch.zeros(3, *shape), torch.zeros(shape)
    for slices, corner in itertools.product(range(shape[0]) if len(patch) == 2 else [...], itertools.product(*grid)):
        inside = tuple(slice(low, low + edge) for low, edge in zip(corner, patch, strict=True))
        index = inside if len(patch) == 3 else (slices, *inside)
        total[(slice(None), *index)] += importance * network(torch.from_numpy(image)[(slice(None), *index)][None])[0]
        weights[index] += importance
    expected = (total / weights).numpy()
    logits = predict_logits(network, image, configuration(patch))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@DIMENSIONS
def test_mirroring_makes_the_prediction_of_a_mirrored_image_the_mirrored_prediction(shape, patch):
    network = convolution(len(patch), 3)
    image = random_image(patch if len(patch) == 3 else (2, *patch))
    axes = tuple(range(len(patch)))
    plain = predict_logits(network, image, configuration(patch), mirror_axes=axes)
    for axis in (1, 2):
        flipped = np.ascontiguousarray(np.flip(image, axis + 1))
        mirrored = predict_logits(network, flipped, configuration(patch), mirror_axes=axes)
        np.testing.assert_allclose(np.flip(mirrored, axis + 1), plain, rtol=1e-4, atol=1e-5)
    assert not np.allclose(predict_logits(network, image, configuration(patch)), plain, atol=1e-3)


@DIMENSIONS
def test_mirroring_averages_over_all_subsets_of_the_axes(shape, patch):
    image = random_image(patch if len(patch) == 3 else (2, *patch), n_channels=1)
    first_axis = predict_logits(Ramp(), image, configuration(patch), mirror_axes=(0,))
    np.testing.assert_allclose(first_axis, (patch[0] - 1) / 2, rtol=1e-6)
    second_axis = predict_logits(Ramp(), image, configuration(patch), mirror_axes=(1,))
    np.testing.assert_allclose(second_axis, predict_logits(Ramp(), image, configuration(patch)), rtol=1e-6)


def test_an_ensemble_gives_the_mean_of_its_members_logits():
    image, settings = random_image((5, 9, 9)), configuration((4, 8, 8))
    members = [convolution(3, 3), Fixed(1.0, 2.0, 3.0), Fixed(-4.0, 0.0, 5.0)]
    expected = np.mean([predict_logits(member, image, settings) for member in members], axis=0)
    np.testing.assert_allclose(predict_logits(members, image, settings), expected, rtol=1e-5, atol=1e-6)


def test_mixed_precision_stays_near_float32_and_sums_in_it():
    image, settings = random_image((6, 9, 9)), configuration((4, 8, 8))
    exact = predict_logits(convolution(3, 3), image, settings)
    mixed = predict_logits(convolution(3, 3), image, settings, autocast_dtype=torch.bfloat16)
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, exact, atol=0.03)
    assert not np.array_equal(mixed, exact)


class Overflowing(nn.Module):
    """Infinite in mixed precision, 1 in float32."""

    def forward(self, images):
        value = torch.inf if torch.is_autocast_enabled("cpu") else 1.0
        return torch.full_like(images, value)


def test_a_window_that_overflows_in_mixed_precision_is_computed_again_in_float32():
    image, settings = random_image((4, 8, 8), n_channels=1), configuration((4, 8, 8))
    logits = predict_logits(Overflowing(), image, settings, autocast_dtype=torch.bfloat16)
    np.testing.assert_allclose(logits, 1, rtol=1e-6)


def test_logits_that_are_no_numbers_are_an_error():
    with pytest.raises(ModelError, match=r"NaN or infinite logits.*diverged"):
        predict_logits(Fixed(float("nan")), random_image((4, 8, 8)), configuration((4, 8, 8)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0.0}, "step: found 0.0, expected a share"),
        ({"step": 1.5}, "step: found 1.5"),
        ({"batch_size": 0}, "batch of windows: found 0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        predict_logits(Fixed(1.0), random_image((4, 8, 8)), configuration((4, 8, 8)), **options)


def test_an_empty_ensemble_is_refused():
    with pytest.raises(ModelError, match="no network, expected at least one"):
        predict_logits([], random_image((4, 8, 8)), configuration((4, 8, 8)))


def test_an_image_without_voxels_is_refused():
    with pytest.raises(ModelError, match="no voxels"):
        predict_logits(Fixed(1.0), np.zeros((1, 0, 9, 9), np.float32), configuration((8, 8)))


@pytest.mark.parametrize("kind", ["read-only", "reversed", "float64", "tensor"])
def test_any_array_of_numbers_will_do(kind):
    image, settings = random_image((5, 9, 9)), configuration((4, 8, 8))
    expected = predict_logits(convolution(3, 3), image, settings)
    given = {
        "read-only": image.copy(), "reversed": np.ascontiguousarray(image[:, ::-1])[:, ::-1],
        "float64": image.astype(np.float64), "tensor": torch.from_numpy(image),
    }[kind]  # fmt: skip
    if kind == "read-only":
        given.flags.writeable = False
    np.testing.assert_array_equal(predict_logits(convolution(3, 3), given, settings), expected)
    np.testing.assert_array_equal(image, random_image((5, 9, 9)))


def test_progress_counts_the_windows():
    seen = []
    predict_logits(
        Fixed(1.0),
        random_image((3, 8, 16)),
        configuration((8, 8)),
        batch_size=4,
        progress=lambda *news: seen.append(news[:2]),
    )
    assert seen == [(4, 9), (8, 9), (9, 9)]


def test_small_windows_go_together_and_large_ones_alone():
    cpu = torch.device("cpu")
    assert default_batch((128, 128, 128), cpu) == 1
    assert default_batch((64, 64), cpu) == 16
    assert default_batch((256, 256), cpu) == 4
    assert default_batch((128, 128, 128), torch.device("cuda")) == 2
