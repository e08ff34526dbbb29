from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.core.errors import Fault, FileFormatError
from autoseg.core.geometry import ASSUMED, Geometry
from autoseg.inference import inputs as inputs_module
from autoseg.inference.inputs import check_inputs, header_faults, header_warnings, image_fault

SHAPE = (1, 9, 14, 12)
SPACING = (2.0, 1.0, 1.0)


@pytest.fixture
def planned(checkpoint_maker):
    """Return a maker of (plan, configuration)."""

    def make(**options):
        made = checkpoint_maker(**options)
        return made.plan, made.plan.configuration(made.configuration)

    return make


def messages(shape, geometry, planned_pair):
    return [str(fault) for fault in header_faults("case x", shape, geometry, *planned_pair)]


def test_an_image_like_the_training_data_has_no_fault(planned):
    assert messages(SHAPE, Geometry(spacing=SPACING), planned()) == []
    assert header_warnings(SHAPE, Geometry(spacing=SPACING), *planned(), 2) == ()


def test_the_number_of_channels_must_be_the_trainings(planned):
    (message,) = messages((1, 9, 9, 9), Geometry(spacing=SPACING), planned(n_channels=2))
    assert message.startswith("case x: found 1 channel, expected 2 (channel0, channel1), as in training.")
    assert "found 4 channels" in messages((4, 9, 9, 9), Geometry(spacing=SPACING), planned())[0]


@pytest.mark.parametrize("edge", [0.0, -1.0, math.nan, math.inf])
def test_a_spacing_that_is_none_is_a_fault(planned, edge):
    (message,) = messages(SHAPE, Geometry(spacing=(2.0, edge, 1.0)), planned())
    assert "expected positive numbers (mm)" in message


def test_an_assumed_spacing_is_no_fault_of_the_header(planned):
    assumed = Geometry(spacing=(1.0, 1.0, 1.0), metadata={"spacing": ASSUMED})
    (message,) = messages(SHAPE, assumed, planned(spacing=(0.002, 0.0005, 0.0005)))
    assert "2e+03 times off the training data" in message
    assert "write it in mm into <case>.json beside the image (of an array volume.json beside" in message


def test_an_image_without_voxels_is_a_fault(planned):
    assert "shape (0, 14, 12)" in messages((1, 0, 14, 12), Geometry(spacing=SPACING), planned())[0]


def test_pictures_and_volumes_are_not_mixed_up(planned):
    flat = Geometry(spacing=(999.0, 1.0, 1.0), ndim=2)
    (message,) = messages((1, 1, 20, 20), flat, planned())
    assert "found a 2-D image, expected a volume" in message
    pictures = planned(n_dims=2, spacing=(999.0, 1.0, 1.0))
    assert messages((1, 30, 20, 20), Geometry(spacing=SPACING), pictures) == []  # each slice by itself
    assert messages((1, 1, 20, 20), flat, pictures) == []
    assert messages((1, 30, 20, 20), Geometry(spacing=SPACING), planned(n_dims=2)) == []


def test_slices_of_volumes_along_another_axis_do_not_take_pictures(planned):
    flat = Geometry(spacing=(999.0, 1.0, 1.0), ndim=2)
    sagittal = planned(n_dims=2, transpose=(2, 0, 1))
    assert "found a 2-D image" in messages((1, 1, 20, 20), flat, sagittal)[0]


@pytest.mark.parametrize("factor", [1 / 5, 5])
def test_an_unusual_spacing_is_a_warning_with_both_values(planned, factor):
    geometry = Geometry(spacing=(2.0, factor, 1.0))
    assert messages(SHAPE, geometry, planned()) == []
    (warning,) = header_warnings(SHAPE, geometry, *planned(), 2)
    assert f"2 x {factor:g} x 1 mm, 5.0 times off the training data's 2 x 1 x 1 mm" in warning


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_a_spacing_in_other_units_is_a_fault(planned, factor):
    geometry = Geometry(spacing=(2.0 * factor, factor, factor))
    (message,) = messages(SHAPE, geometry, planned())
    assert f"{1000:.3g} times off the training data, expected about 2 x 1 x 1 mm" in message


def test_models_of_pictures_without_a_pixel_size_say_what_images_they_take(planned):
    (message,) = messages(
        (1, 9, 14, 12), Geometry(spacing=(5e-5, 8e-6, 8e-6)), planned(n_dims=2, spacing=(999.0, 1, 1))
    )
    assert "state no pixel size, so 1 mm was assumed for them: give the image in a format that states none" in message


def test_spacings_are_compared_in_the_axes_of_the_file(planned):
    pair = planned(spacing=(8.0, 1.0, 0.5), transpose=(2, 0, 1))
    geometry = Geometry(spacing=(1.0, 0.5, 8.0))
    assert messages(SHAPE, geometry, pair) == []
    assert header_warnings(SHAPE, geometry, *pair, 2) == ()
    swapped = Geometry(spacing=(8.0, 1.0, 0.5))
    (warning,) = header_warnings(SHAPE, swapped, *pair, 2)
    assert "the training data's 1 x 0.5 x 8 mm" in warning


def test_an_image_that_needs_much_memory_is_a_warning(planned):
    """1e9 voxels twice, and 100 outputs in as many planes as a patch has: 8, or 1 in 2-D."""
    image, geometry = (1, 1000, 1000, 1000), Geometry(spacing=SPACING)
    (warning,) = header_warnings(image, geometry, *planned(), 100)
    assert "1e+09 voxels at the plan's spacing; with 100 outputs that needs about 10 GB" in warning
    assert header_warnings(image, geometry, *planned(), 2) == ()
    assert header_warnings(image, geometry, *planned(n_dims=2), 100) == ()


def test_memory_is_that_of_planes_across_the_plans_first_axis(planned):
    pair = planned(transpose=(2, 0, 1))
    geometry = Geometry(spacing=(1.0, 1.0, 2.0))
    (warning,) = header_warnings((1, 2000, 1000, 500), geometry, *pair, 100)
    assert "needs about 13 GB" in warning  # planes of 2000 x 1000


def test_nan_and_inf_are_counted():
    image = np.zeros((2, 3, 4, 5), np.float32)
    assert image_fault("case x", image) is None
    image[0, 0, 0, 0], image[1, 2, 3, 4] = np.nan, -np.inf
    assert "case x: found 2 voxels that are NaN or infinite" in str(image_fault("case x", image))


def test_all_cases_are_checked_and_faults_keep_their_case(planned, monkeypatch, tmp_path):
    headers = {
        "good.nii": (SHAPE, Geometry(spacing=SPACING)),
        "odd.nii": (SHAPE, Geometry(spacing=(2.0, 4.0, 4.0))),
        "colour.nii": ((3, 9, 9, 9), Geometry(spacing=SPACING)),
        "shifted.nii": (SHAPE, Geometry(spacing=SPACING, origin=(9.0, 0.0, 0.0))),
        "larger.nii": ((1, 9, 9, 13), Geometry(spacing=SPACING)),
    }

    def read(path):
        if path.name not in headers:
            raise FileFormatError(Fault(str(path), "nothing", "a file", "Copy it again."))
        return headers[path.name]

    monkeypatch.setattr(inputs_module, "read_header", read)
    monkeypatch.setattr(inputs_module, "read_remarks", lambda path: ("odd",) if path.name == "good.nii" else ())
    names = {
        "a": ["good.nii"], "b": ["odd.nii"], "c": ["colour.nii"], "d": ["absent.nii"],
        "e": ["good.nii", "shifted.nii"], "f": ["good.nii", "larger.nii"],
    }  # fmt: skip
    cases = {name: [tmp_path / file for file in files] for name, files in names.items()}
    check = check_inputs(cases, [planned()], n_outputs=2, workers=2)
    assert list(check.faults) == ["c", "d", "e", "f"]
    assert "found 3 channels" in str(check.faults["c"][0])
    assert "files that cannot be read" in str(check.faults["d"][0])
    assert "another origin than in good.nii" in str(check.faults["e"][0])
    assert "another shape than in good.nii" in str(check.faults["f"][0])
    assert [warning.split(": ")[0] for warning in check.warnings] == ["case 'a'", "case 'b'"]
    assert check.warnings[0] == "case 'a': odd"


def test_two_channels_in_two_files_count_as_two(planned, monkeypatch, tmp_path):
    monkeypatch.setattr(inputs_module, "read_remarks", lambda path: ())
    monkeypatch.setattr(inputs_module, "read_header", lambda path: (SHAPE, Geometry(spacing=SPACING)))
    files = [tmp_path / "x_0000.nii", tmp_path / "x_0001.nii"]
    assert check_inputs({"x": files}, [planned(n_channels=2)], n_outputs=2).faults == {}
    assert check_inputs({}, [planned()], n_outputs=2).faults == {}
