import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from autoseg.core.dicom import conversion, dicom_folder
from autoseg.core.errors import FileFormatError
from autoseg.dataset.case_files import find_image_cases
from autoseg.io.images import read_image

VOLUME = np.arange(3 * 8 * 9, dtype=np.int16).reshape(3, 8, 9)


def series(folder, ending=""):
    """Write the slices of a volume as DICOM files; names without ending, as scanners give them."""
    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, plane in enumerate(VOLUME):
        image = sitk.GetImageFromArray(plane[None])
        stated = {"0008|0060": "CT", "0020|000e": "1.2.3", "0020|000d": "1.2.4", "0020|0013": str(number)}
        stated |= {"0008|0018": f"1.2.3.{number}", "0020|0032": f"0\\0\\{number}", "0020|0037": "1\\0\\0\\0\\1\\0"}
        for key, value in stated.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"IM{number}.dcm"))
        writer.Execute(image)
        (folder / f"IM{number}.dcm").rename(folder / f"IM{number}{ending}")
    return folder


@pytest.mark.parametrize("place", [".", "patient_1"])
@pytest.mark.parametrize("ending", ["", ".dcm"])
def test_a_folder_of_slices_is_named_with_the_way_to_convert_it(tmp_path, place, ending):
    slices = series(tmp_path / "in" / place, ending) if place != "." else series(tmp_path / "in", ending)
    _, (fault,) = find_image_cases(tmp_path / "in", ".nrrd", 1)
    assert fault.found == "DICOM files"
    assert fault.where == str(slices)
    command = fault.fix.partition(" -c ")[2].strip(". ").strip('"')
    subprocess.run([sys.executable, "-c", command], check=True, cwd=tmp_path)
    np.testing.assert_array_equal(read_image([tmp_path / "case_0000.nrrd"])[0][0], VOLUME)


def test_a_folder_of_slices_given_as_a_file_is_reported(tmp_path):
    folder = series(tmp_path / "case_0000.nii.gz")
    with pytest.raises(FileFormatError, match=r"a folder of DICOM files.*ImageSeriesReader"):
        read_image([folder])


def test_other_folders_are_not_dicom(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 200)
    assert dicom_folder(tmp_path) is None
    assert dicom_folder(tmp_path / "missing") is None
    assert "case_0000.nii.gz" in conversion("x", ".dcm")
