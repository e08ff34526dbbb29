"""Images and masks are paired by whole IDs, whatever surrounds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.core.errors import DatasetError
from autoseg.dataset.pairing import pair_by_name


def paired(images, masks, **options):
    pairing = pair_by_name([Path(name) for name in images], [Path(name) for name in masks], **options)
    return {image.name: mask.name for image, mask in pairing.pairs.values()}


@pytest.mark.parametrize(
    "names",
    [
        {"0001.tif": "0001_mask.png", "0002.tif": "0002_mask.png"},
        {"0001.tif": "0001.png"},
        {"img_5.png": "img_5_label.tif", "img_15.png": "img_15_label.tif"},
        {"1.png": "1_mask.png", "10.png": "10_mask.png", "100.png": "100_mask.png"},
        {"img_1.png": "mask_1.png", "img_2.png": "mask_2.png"},
        {"1_raw.tif": "1_seg.tif", "11_raw.tif": "11_seg.tif"},
        {"cell.nii.gz": "cell-labels.nii.gz"},
        {"a b.png": "a b mask.png", "c.png": "c mask.png"},
        {"x_1_img.png": "x_1_msk.png", "x_2_img.png": "x_2_msk.png"},
        {"1107.png": "1107_cFOS.png", "1108.png": "1108_cFOS.png"},
        {"A01.png": "A01mask.png", "A02.png": "A02mask.png"},
        {"hip_0000.nii.gz": "hip.nii.gz"},
        {"hip_0000.nii.gz": "hip_mask.nii.gz"},
        {"hip_0000.nii.gz": "hip_0000_mask.nii.gz"},
        {"hip_0000.png": "hip.png", "knee_0000.png": "knee.png"},
        {"a_1_0000.png": "a_1.png", "b_1_0000.png": "b_1.png"},
        {"t_0000.png": "t_0000_mask.png", "t_0001.png": "t_0001_mask.png"},
        {"müller.png": "mu\u0308ller_mask.png"},
    ],
    ids=lambda names: next(iter(names.items())).__str__(),
)
def test_images_find_their_masks(names):
    assert paired(names, names.values()) == names
    assert paired(reversed(list(names)), reversed(list(names.values()))) == names


def test_a_number_is_not_the_start_of_another():
    pairing = pair_by_name([Path("1.png"), Path("10.png")], [Path("10_mask.png")])
    assert list(pairing.pairs) == ["10"]
    assert pairing.images_alone == (Path("1.png"),)


def test_what_has_no_partner_is_returned():
    pairing = pair_by_name(
        [Path("1.png"), Path("2.png"), Path("3.png")], [Path("2_mask.png"), Path("notes.png"), Path("3_mask.png")]
    )
    assert list(pairing.pairs) == ["2", "3"] and pairing.mask.after == "_mask"
    assert pairing.images_alone == (Path("1.png"),) and pairing.masks_alone == (Path("notes.png"),)


def test_cases_of_images_of_a_data_set_have_no_number_of_a_channel():
    alone = pair_by_name([Path("hip_0000.nii.gz")], [Path("hip.nii.gz")])
    assert list(alone.pairs) == ["hip"]
    both = pair_by_name([Path("hip_0000.png"), Path("knee_0000.png")], [Path("hip_mask.png")])
    assert list(both.pairs) == ["hip"] and both.images_alone == (Path("knee_0000.png"),)
    series = pair_by_name([Path("t_0000.png"), Path("t_0001.png")], [Path("t_0000.png"), Path("t_0001.png")])
    assert list(series.pairs) == ["t_0000", "t_0001"]
    marked = pair_by_name([Path("hip_0000.png")], [Path("hip_0000_mask.png")], suffix="_mask")
    assert list(marked.pairs) == ["hip"]


def test_an_image_without_a_channel_number_is_not_mixed_up_with_one_that_has_it():
    pairing = pair_by_name([Path("hip.png"), Path("hip_0000.png")], [Path("hip.png")])
    assert list(pairing.pairs) == ["hip"] and pairing.images_alone == (Path("hip_0000.png"),)


def test_names_that_do_not_fit_are_no_pairs():
    assert paired(["a.png", "b.png"], ["c_mask.png", "d_mask.png"]) == {}
    assert paired([], ["c_mask.png"]) == {}
    assert paired(["a.png"], []) == {}


def test_two_kinds_of_masks_are_refused_until_one_is_named():
    images = ["1.png", "2.png"]
    masks = ["1_mask.png", "2_mask.png", "1_weight.png", "2_weight.png"]
    with pytest.raises(DatasetError, match="--mask-suffix"):
        paired(images, masks)
    assert paired(images, masks, suffix="_weight") == {"1.png": "1_weight.png", "2.png": "2_weight.png"}


def test_the_more_frequent_kind_of_masks_is_taken():
    masks = ["1_mask.png", "2_mask.png", "3_mask.png", "1_old.png"]
    assert paired(["1.png", "2.png", "3.png"], masks) == {f"{n}.png": f"{n}_mask.png" for n in (1, 2, 3)}


def test_two_files_of_one_name_are_refused():
    with pytest.raises(DatasetError, match="several files named 'hip_0000'"):
        paired(["hip_0000.png", "hip_0000.tif"], ["hip.png"])
    with pytest.raises(DatasetError, match="several files named '1'"):
        paired(["1.png", "1.tif"], ["1_mask.png"])
