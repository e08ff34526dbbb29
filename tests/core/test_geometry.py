import pytest

from autoseg.core.geometry import ASSUMED, Geometry, slice_axis

BASE = Geometry(spacing=(3.0, 2.0, 1.0), origin=(5.0, 6.0, 7.0))
FLAT = Geometry(spacing=(999.0, 0.5, 1.0), ndim=2)


def test_voxel_volume_is_a_volume_in_3d_and_an_area_in_2d():
    assert BASE.voxel_volume == 6.0
    assert FLAT.voxel_volume == 0.5


@pytest.mark.parametrize("geometry", [BASE, FLAT], ids=["3d", "2d"])
def test_a_geometry_does_not_differ_from_its_json(geometry):
    again = Geometry.model_validate_json(geometry.model_dump_json())
    assert again == geometry
    assert geometry.differs_from(again) == ()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"spacing": (3.0, 2.0, 1.01)}, ("spacing",)),
        ({"origin": (5.0, 6.0, 7.1)}, ("origin",)),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, ("direction",)),
        ({"spacing": (3.0, 2.0, 1.0005), "origin": (5.0, 6.0005, 7.0)}, ()),
        ({"ndim": 2}, ("spacing", "origin", "direction")),
        ({"origin": (float("nan"), 6.0, 7.0)}, ("origin",)),
    ],
)
def test_differences_are_named_and_rounding_is_none(change, expected):
    assert BASE.differs_from(BASE.model_copy(update=change)) == expected
    assert BASE.model_copy(update=change).differs_from(BASE) == expected


def test_an_assumed_spacing_agrees_with_any_of_the_same_dimension():
    assumed = Geometry(spacing=(1.0, 1.0, 1.0), metadata={"spacing": ASSUMED})
    assert assumed.differs_from(BASE) == ()
    assert BASE.differs_from(assumed) == ()
    assert assumed.differs_from(FLAT) == ("spacing", "origin", "direction")


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((9, 9, 9), (1.0, 1.0, 1.0), 0),
        ((9, 9, 9), (1.0, 1.0, 3.0), 2),
        ((9, 9, 9), (0.6, 0.8, 0.8), 0),  # thin slices of square pixels
        ((9, 9, 9), (0.8, 0.6, 0.8), 1),
        ((9, 9, 9), (2.0, 1.0, 1.005), 0),
        ((9, 9, 9), (1.0, 1.009, 1.018), 1),  # no odd one: the first within 1 % of the coarsest
        ((9, 9, 9), (0.7, 0.7000001, 0.7), 0),
        ((9, 9, 9), (0.9, 0.8, 1.2), 2),
        ((1, 9, 9), (999.0, 1.0, 1.0), 0),
        ((1, 24, 32), (1.0, 2.0, 2.0), 0),
        ((24, 1, 32), (5.0, 1.0, 1.0), 1),
    ],
)
def test_slices_lie_across_the_axis_whose_spacing_differs(shape, spacing, axis):
    assert slice_axis(shape, spacing) == axis
