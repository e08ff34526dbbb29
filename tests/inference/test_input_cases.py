"""Cases of a folder, a list or an image, by their files alone."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from PIL import Image

from autoseg.core.errors import DatasetError
from autoseg.dataset.dataset import Dataset
from autoseg.inference.input_cases import MAX_LINES, input_cases


@pytest.fixture
def dataset():
    """Return a maker of data sets with a number of channels."""

    def make(n_channels=1, ending=".png"):
        content = {
            "channel_names": {str(index): f"channel{index}" for index in range(n_channels)},
            "labels": {"background": 0, "cell": 1}, "file_ending": ending, "numTraining": 1,
        }  # fmt: skip
        return Dataset.from_json(content, name="Toy", folder=None)

    return make


@pytest.fixture
def images(tmp_path):
    """A folder with files named as images, some of them empty."""
    folder = tmp_path / "my images"
    folder.mkdir()
    for name in ("a_0000.png", "a_0001.png", "b.png", "c 1.nii.gz", "note.csv"):
        (folder / name).touch()
    Image.new("L", (4, 4)).save(folder / "a_0000.png")
    return folder


def listing(folder, text, name="list.txt", encoding="utf-8"):
    path = folder / name
    path.write_text(text, encoding=encoding)
    return path


def test_each_line_is_a_case_and_relative_paths_start_at_the_list(images, dataset, monkeypatch):
    monkeypatch.setenv("IMAGES", str(images))
    text = f"# first the reds\n\n  b.png \nc 1.nii.gz\n{images}/a_0000.png\n$IMAGES/a_0001.png\n"
    cases, unusable = input_cases(listing(images, text), dataset())
    assert cases == {
        "b": (images / "b.png",), "c 1": (images / "c 1.nii.gz",), "a": (images / "a_0000.png",),
        "a_0001": (images / "a_0001.png",),
    }  # fmt: skip
    assert list(cases) == ["b", "c 1", "a", "a_0001"]
    assert unusable == {}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_of_other_systems_are_read(images, dataset, end, encoding):
    path = images / "list.TXT"
    path.write_bytes(end.join(["b.png", "", "a_0000.png"]).encode(encoding))
    assert list(input_cases(path, dataset())[0]) == ["b", "a"]


def test_channels_are_separated_by_tabs_or_found_beside_the_first(images, dataset):
    pair = (images / "a_0000.png", images / "a_0001.png")
    for text in ("a_0000.png\ta_0001.png", "a_0000.png \t a_0001.png\t", "a_0000.png"):
        assert input_cases(listing(images, text), dataset(2))[0] == {"a": pair}
    assert input_cases(listing(images, "b.png\ta_0001.png"), dataset(2))[0] == {"b": (images / "b.png", pair[1])}
    assert input_cases(listing(images, "a_0000.png"), dataset(1))[0] == {"a": pair[:1]}


def test_an_image_with_all_channels_needs_no_others(images, dataset):
    """Such as the first of frames_0000.png, frames_0001.png ... in colour."""
    Image.new("RGB", (4, 4)).save(images / "a_0000.png")
    assert input_cases(images / "a_0000.png", dataset(3))[0] == {"a": (images / "a_0000.png",)}


def test_an_image_alone_is_a_case(images, dataset):
    assert input_cases(str(images / "b.png"), dataset())[0] == {"b": (images / "b.png",)}
    assert input_cases(images / "a_0000.png", dataset(2))[0] == {"a": (images / "a_0000.png", images / "a_0001.png")}
    assert input_cases(images / "c 1.nii.gz", dataset())[0] == {"c 1": (images / "c 1.nii.gz",)}


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("b.png\n\nx.png\n", ["list.txt, line 3: found no file, ", "x.png, expected an image"]),
        ("a_0000.png a_0001.png\n", ["line 1: found no file", "separated by tabs"]),
        (".\n", ["line 1: found a folder"]),
        ("note.csv\n", ["line 1: found note.csv: the ending '.csv', expected one of .nii.gz"]),
        ("b.png\na_0000.png\n../my images/b.png\n", ["line 3: found the case 'b', as in line 1"]),
        ("a_0000.png\nx.png\na_0000.png\n", ["line 2: found no file", "line 3: found the case 'a', as in line 1"]),
        ("# nothing\n\n", ["list.txt: found no path, expected one image a line"]),
    ],
)
def test_faults_of_a_list_name_its_lines(images, dataset, text, messages):
    with pytest.raises(DatasetError) as raised:
        input_cases(listing(images, text), dataset())
    for message in messages:
        assert message in str(raised.value)


def test_a_list_of_wrong_paths_gives_a_short_message(images, dataset):
    with pytest.raises(DatasetError) as raised:
        input_cases(listing(images, "".join(f"{number}.png\n" for number in range(500))), dataset())
    assert len(raised.value.faults) == MAX_LINES + 1
    assert f"found {500 - MAX_LINES} more wrong lines" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.txt", "no such file"),
        ("gone.png", "no such file"),
        ("gone", "no such folder"),
        ("note.csv", "none of them, expected a folder of images <case>_0000.png, an image, or a list of images (.txt)"),
        ("image.txt", "no text in UTF-8"),
    ],
)
def test_what_is_neither_folder_nor_image_nor_list_is_refused(images, dataset, name, message):
    (images / "image.txt").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(DatasetError) as raised:
        input_cases(Path(images / name), dataset())
    assert message in str(raised.value)


@pytest.mark.parametrize("n_channels", [1, 2])
def test_volumes_in_a_folder_without_images_are_named_with_what_predicts_them(tmp_path, dataset, n_channels):
    folder = tmp_path / "my volumes"
    for name in ("x_0000.zarr", "x_0001.zarr", "y_0000.zarr"):
        (folder / name).mkdir(parents=True)
    with pytest.raises(DatasetError) as error:
        input_cases(folder, dataset(n_channels))
    assert "found no images, but 3 volumes: x_0000.zarr, x_0001.zarr, y_0000.zarr" in str(error.value)
    written = str(error.value).split("write -i ")[1].split(" instead of -i ")[0]
    assert shlex.split(written) == [str(folder / f"x_000{number}.zarr") for number in range(n_channels)]


def test_a_volume_beside_images_says_how_it_is_predicted(images, dataset):
    (images / "x_0000.zarr").mkdir()
    cases, unusable = input_cases(images, dataset(2))
    assert cases.keys() == {"a"}
    assert unusable["x"].endswith(f"Predict it by itself: -i '{images / 'x_0000.zarr'}'.")
