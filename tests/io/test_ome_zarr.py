"""OME-Zarr 0.4 and 0.5, written with yaozarrs and tensorstore: levels, labels, axes, voxel sizes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorstore
from yaozarrs import v05
from yaozarrs.write.v05 import write_image

from autoseg.core.boxes import Box
from autoseg.core.errors import FileFormatError
from autoseg.io.arrays import levels, open_array

FINE = np.random.default_rng(0).integers(0, 250, (4, 20, 24), dtype=np.uint8)
UNITS = {"z": "nanometer", "y": "micrometer", "x": "angstrom"}


def array(path, values, driver="zarr", chunk=None):
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}, "create": True}
    layout = tensorstore.ChunkLayout(chunk_shape=chunk or values.shape)
    tensorstore.open(spec, dtype=tensorstore.dtype(values.dtype), shape=values.shape, chunk_layout=layout).result()[
        ...
    ] = values


def multiscales(axes, scales, paths=("0", "1"), **more):
    named = [
        {"name": name, "type": {"t": "time", "c": "channel"}.get(name, "space")}
        | ({"unit": UNITS[name]} if name in UNITS else {})
        for name in axes
    ]
    datasets = [
        {"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for path, scale in zip(paths, scales, strict=False)
    ]
    return {"multiscales": [{"version": "0.4", "axes": named, "datasets": datasets} | more]}


def group(path, attributes, version=2):
    path.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(attributes))
    else:
        content = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        (path / "zarr.json").write_text(json.dumps(content))


@pytest.fixture
def image(tmp_path):
    """OME-Zarr 0.4 with two levels and two label images."""
    root = tmp_path / "a.zarr"
    group(root, multiscales("zyx", [[40, 0.004, 40], [40, 0.008, 80]]))
    array(root / "0", FINE)
    array(root / "1", FINE[:, ::2, ::2])
    group(root / "labels", {"labels": ["cells", "nuclei"]})
    for name, value in (("cells", 3), ("nuclei", 5)):
        group(root / "labels" / name, multiscales("zyx", [[40, 0.004, 40]], **{"name": name}) | {"image-label": {}})
        array(root / "labels" / name / "0", np.full_like(FINE, value))
    return root


def test_an_image_stands_for_its_finest_level_and_units_become_mm(image):
    found = open_array(image)
    assert np.array_equal(found.read(Box.whole(found.spatial_shape))[0], FINE)
    assert found.geometry.spacing == pytest.approx((4e-5, 4e-6, 4e-6))
    assert found.header.remarks == ()


def test_a_level_is_named_after_the_colon_and_has_its_own_voxel_size(image):
    found = open_array(f"{image}:1")
    assert found.spatial_shape == (4, 10, 12)
    assert found.geometry.spacing == pytest.approx((4e-5, 8e-6, 8e-6))
    assert open_array(image / "1").geometry == found.geometry


def test_levels_are_listed_with_their_voxel_sizes(image):
    found = levels(image)
    assert [location for location, _ in found] == [f"{image}:0", f"{image}:1"]
    assert all(open_array(location).geometry == geometry for location, geometry in found)
    assert levels(f"{image}:labels/cells")[0][0] == f"{image}:labels/cells/0"
    assert levels(f"{image}:1") == ()


@pytest.mark.parametrize("name", ["labels/cells", "labels/cells/0", "/labels/cells/"])
def test_labels_are_named_by_their_path(image, name):
    found = open_array(f"{image}:{name}", as_labels=True)
    assert (found.read(Box.whole(found.spatial_shape)) == 3).all()
    assert found.geometry.spacing == pytest.approx((4e-5, 4e-6, 4e-6))


def test_one_of_several_labels_must_be_named(image):
    with pytest.raises(FileFormatError, match=r"a group of cells, nuclei.*a.zarr:labels/cells"):
        open_array(f"{image}:labels")


def test_a_misspelt_label_is_explained(image):
    with pytest.raises(FileFormatError, match="Did you mean 'labels/cells/0'"):
        open_array(f"{image}:labels/cell/0")


def test_images_that_yaozarrs_writes_are_read(tmp_path):
    volume = np.random.default_rng(0).integers(0, 9, (1, 2, 3, 16, 20), dtype=np.uint16)
    axes = [
        v05.TimeAxis(name="t"), v05.ChannelAxis(name="c"), *(v05.SpaceAxis(name=n, unit="micrometer") for n in "zyx"),
    ]  # fmt: skip
    scales = [
        v05.ScaleTransformation(scale=[1, 1, 2, 0.5, 0.5]),
        v05.TranslationTransformation(translation=[0, 0, 1, 10, 20]),
    ]
    datasets = [v05.Dataset(path="0", coordinateTransformations=scales)]
    metadata = v05.Image(multiscales=[v05.Multiscale(axes=axes, datasets=datasets)])
    write_image(tmp_path / "a.zarr", metadata, [volume], writer="tensorstore", chunks=(1, 1, 2, 8, 8))
    found = open_array(tmp_path / "a.zarr")
    assert found.shape == (2, 3, 16, 20)
    assert found.chunk == (2, 8, 8)
    assert np.array_equal(found.read(Box.whole(found.spatial_shape)), volume[0])
    assert found.geometry.spacing == pytest.approx((2e-3, 5e-4, 5e-4))
    assert found.geometry.origin == pytest.approx((0.02, 0.01, 0.001))


def test_transformations_of_the_whole_pyramid_are_applied_after_those_of_a_level(tmp_path):
    overall = [{"type": "scale", "scale": [2, 2, 2]}, {"type": "translation", "translation": [100, 0.1, 0]}]
    group(tmp_path / "a.zarr", multiscales("zyx", [[40, 0.004, 40]], coordinateTransformations=overall))
    array(tmp_path / "a.zarr/0", FINE)
    geometry = open_array(tmp_path / "a.zarr").geometry
    assert geometry.spacing == pytest.approx((8e-5, 8e-6, 8e-6))
    assert geometry.origin == pytest.approx((0, 1e-4, 1e-4))


def test_a_plane_is_a_2d_image(tmp_path):
    group(tmp_path / "a.zarr", multiscales("yx", [[0.5, 5000]]))
    array(tmp_path / "a.zarr/0", FINE[0])
    found = open_array(tmp_path / "a.zarr")
    assert found.geometry.ndim == 2
    assert found.geometry.spacing[1:] == pytest.approx((5e-4, 5e-4))


@pytest.mark.parametrize(("scale", "spacing"), [([1, 1, 1], (1, 1, 1)), ([50, 4, 4], (0.05, 0.004, 0.004))])
def test_sizes_without_units_are_micrometres_with_a_remark_unless_all_are_1(tmp_path, scale, spacing):
    attributes = multiscales("zyx", [scale])
    for axis in attributes["multiscales"][0]["axes"]:
        del axis["unit"]
    group(tmp_path / "a.zarr", attributes)
    array(tmp_path / "a.zarr/0", FINE)
    found = open_array(tmp_path / "a.zarr")
    assert found.geometry.spacing == pytest.approx(spacing)
    assert bool(found.header.remarks) == (scale != [1, 1, 1])
    assert (found.geometry.metadata.get("spacing") == "assumed") == (scale == [1, 1, 1])


def test_metadata_that_are_not_valid_are_explained_and_the_array_can_still_be_named(tmp_path):
    group(tmp_path / "a.zarr", {"multiscales": [{"version": "0.1", "datasets": [{"path": "0"}]}]})
    array(tmp_path / "a.zarr/0", FINE)
    with pytest.raises(FileFormatError, match=r"not valid.*Name the array itself after a colon"):
        open_array(tmp_path / "a.zarr")
    found = open_array(f"{tmp_path / 'a.zarr'}:0")
    assert found.geometry.metadata["spacing"] == "assumed"


def test_broken_json_is_an_error_of_the_file(tmp_path):
    group(tmp_path / "a.zarr", {}, version=3)
    (tmp_path / "a.zarr/zarr.json").write_text("{")
    with pytest.raises(FileFormatError, match="no JSON"):
        open_array(tmp_path / "a.zarr")


def test_the_only_array_of_a_group_needs_no_name(tmp_path):
    group(tmp_path / "a.zarr", {})
    array(tmp_path / "a.zarr/raw", FINE)
    assert open_array(tmp_path / "a.zarr").spatial_shape == FINE.shape
    array(tmp_path / "a.zarr/labels", FINE)
    with pytest.raises(FileFormatError, match="a group of labels, raw"):
        open_array(tmp_path / "a.zarr")


def test_levels_may_lie_in_groups_of_their_own(tmp_path):
    group(tmp_path / "a.zarr", multiscales("zyx", [[40, 0.004, 40]], paths=["scale0/image"]))
    group(tmp_path / "a.zarr/scale0", {})
    array(tmp_path / "a.zarr/scale0/image", FINE)
    assert open_array(tmp_path / "a.zarr").geometry.spacing == pytest.approx((4e-5, 4e-6, 4e-6))
