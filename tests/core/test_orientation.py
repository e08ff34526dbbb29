"""Arrays are turned without loss, and every voxel keeps its place in the world."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from autoseg.core.geometry import ASSUMED, Geometry
from autoseg.core.orientation import (
    AS_STORED,
    VoxelOrder,
    has_axes,
    order_towards,
    orientation_name,
    prevailing_direction,
)

SHAPE = (3, 5, 4)
ORDERS = [
    VoxelOrder(axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]
EVERY_ORDER = pytest.mark.parametrize("order", ORDERS, ids=str)
LPS = (1, 0, 0, 0, 1, 0, 0, 0, 1)


def rotated(degrees: tuple[float, float, float]) -> tuple[float, ...]:
    """Direction cosines after turning about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        one, other = (item for item in range(3) if item != axis)
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return tuple(matrix.ravel().tolist())


def places(geometry: Geometry, shape: tuple[int, ...]) -> np.ndarray:
    """World positions (3, *S) of all voxels, by the definition of origin, spacing and direction."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))[::-1]  # x, y, z
    scaled = index * np.array(geometry.spacing[::-1]).reshape(3, 1, 1, 1)
    turned = np.einsum("ij,j...->i...", np.reshape(geometry.direction, (3, 3)), scaled)
    return turned + np.array(geometry.origin).reshape(3, 1, 1, 1)


@EVERY_ORDER
def test_turning_back_undoes_turning(order):
    array = np.arange(60).reshape(SHAPE)
    np.testing.assert_array_equal(order.invert(order.apply(array)), array)
    np.testing.assert_array_equal(order.apply(order.invert(array)), array)
    stack = np.stack([array, -array])
    np.testing.assert_array_equal(order.apply(stack), np.stack([order.apply(array), -order.apply(array)]))
    assert order.apply(array).shape == order.permuted(SHAPE)
    assert order.inverse.permuted(order.permuted("zyx")) == ("z", "y", "x")
    np.testing.assert_array_equal(order.then((2, 0, 1)).apply(array), order.apply(array).transpose(2, 0, 1))


@EVERY_ORDER
@pytest.mark.parametrize("degrees", [(0, 0, 0), (20, -30, 10)], ids=["straight", "oblique"])
def test_every_voxel_keeps_its_place(order, degrees):
    geometry = Geometry(spacing=(3.0, 2.0, 1.0), origin=(5.0, -6.0, 7.0), direction=rotated(degrees))
    turned = order.turned(geometry, SHAPE)
    np.testing.assert_allclose(places(turned, order.permuted(SHAPE)), order.apply(places(geometry, SHAPE)), atol=1e-9)
    assert order_towards(turned, geometry.direction) == order.inverse
    assert order_towards(turned, geometry.direction).turned(turned, order.permuted(SHAPE)).differs_from(geometry) == ()


def test_names_are_the_world_directions_of_x_y_and_z():
    assert orientation_name(LPS) == "LPS"
    assert orientation_name((-1, 0, 0, 0, -1, 0, 0, 0, 1)) == "RAS"
    assert orientation_name((1, 0, 0, 0, 0, 1, 0, -1, 0)) == "LIP"  # x to the left, y down, z to the back
    assert orientation_name(rotated((20, -30, 10))) == "LPS"
    assert orientation_name(LPS, VoxelOrder(flipped=(False, False, True))) == "RPS"
    assert orientation_name(LPS, VoxelOrder(axes=(1, 0, 2))) == "LSP"


@pytest.mark.parametrize(
    "silent",
    [
        Geometry(spacing=(1, 1, 1)),
        Geometry(spacing=(999, 1, 1), ndim=2, metadata={"spacing": ASSUMED}),
        Geometry(spacing=(1, 1, 1), direction=(0,) * 9),
        Geometry(spacing=(1, 1, 1), direction=(float("nan"),) * 9),
    ],
)
def test_a_file_without_stated_directions_stays_as_it_is_stored(silent):
    assert not has_axes(silent)
    assert order_towards(silent, (-1, 0, 0, 0, -1, 0, 0, 0, 1)) == AS_STORED
    assert prevailing_direction([silent]) is None
    assert order_towards(Geometry(spacing=(1, 1, 1), direction=LPS), None) == AS_STORED


def test_whether_directions_are_stated_survives_json():
    for geometry in (Geometry(spacing=(1, 1, 1)), Geometry(spacing=(1, 1, 1), direction=LPS)):
        assert Geometry.model_validate_json(geometry.model_dump_json()).is_directed == geometry.is_directed
    assert Geometry.model_validate({"spacing": (1, 1, 1), "direction": LPS}).is_directed  # as records used to be


def of(*directions: tuple[float, ...]) -> list[Geometry]:
    return [Geometry(spacing=(1, 1, 1), direction=direction) for direction in directions]


def test_the_order_of_most_files_prevails_and_the_first_of_equally_many():
    ras = (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    assert prevailing_direction(of(LPS, ras, ras)) == ras
    assert prevailing_direction(of(LPS, ras)) == LPS
    assert prevailing_direction(of(ras, LPS)) == ras
    silent = Geometry(spacing=(1, 1, 1))
    assert prevailing_direction([silent, silent, *of(ras)]) == ras


@pytest.mark.parametrize("seed", range(3))
def test_oblique_views_that_resemble_each_other_are_in_one_order(seed):
    """Short axes of hearts point between left, anterior and inferior: no axis of the world is closest for all."""
    rng = np.random.default_rng(seed)
    hearts = of(*(rotated(tuple(np.array([45, 35, 45]) + rng.uniform(-12, 12, 3))) for _ in range(30)))
    assert len({orientation_name(heart.direction) for heart in hearts}) > 1
    prevailing = prevailing_direction(hearts)
    assert {order_towards(heart, prevailing) for heart in hearts} == {AS_STORED}


def test_of_equally_close_orders_the_stored_one_is_taken():
    (half_way,) = of(rotated((45, 0, 0)))
    assert order_towards(half_way, LPS) == AS_STORED
