"""A data set of a folder of images as microscopes and their programs leave them: names of any kind, any channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autoseg.core.errors import ConfigError, DatasetError, Fault, FileFormatError
from autoseg.core.findings import listed
from autoseg.dataset.case_files import is_file_name
from autoseg.dataset.dataset import DATASET_JSON, CaseFiles
from autoseg.dataset.folder_files import has_ending, visible
from autoseg.io.images import SUPPORTED_ENDINGS, ending_of, read_header, written_ending
from autoseg.io.raw_layout import put_images

IMAGES, LABELS = "imagesTr", "labelsTr"
_COLOURS = ("red", "green", "blue")


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Images that can be the cases of one data set."""

    images: Mapping[str, Path]
    """Case -> image, sorted by case."""
    ending: str
    """Of all images."""
    n_channels: int
    """Of every image."""

    @property
    def label_ending(self) -> str:
        """Ending of the label files."""
        return written_ending(self.ending)

    def put(self, output: Path, *, copy: bool = False) -> None:
        """Link (or copy) the images into a data set."""
        cases = [CaseFiles(name, (path,), None) for name, path in self.images.items()]
        put_images(cases, self.ending, output / IMAGES, copy=copy)


def find_images(folder: Path) -> tuple[Path, ...]:
    """Return the images in ``folder``, sorted by name.

    Raises ``DatasetError`` if there is none, or if they have several endings.
    """
    if not folder.is_dir():
        raise DatasetError([Fault(str(folder), "no folder", "a folder with images", "Correct the path.")])
    images = [path for path in visible(folder) if path.is_file() and _is_image(path)]
    if not images:
        expected = f"images ({', '.join(SUPPORTED_ENDINGS)})"
        raise DatasetError([Fault(str(folder), "no image", expected, "Convert them, or give another folder.")])
    return tuple(images)


def image_folder(images: Mapping[str, Path]) -> ImageFolder:
    """Return the images as cases of one data set.

    Parameters
    ----------
    images
        Case -> image file, at least one.

    Raises
    ------
    DatasetError
        If images have different endings or numbers of channels, or cannot be read.
    """
    endings = Counter(ending_of(path).lower() for path in images.values())
    if len(endings) > 1:
        found = ", ".join(f"{number} {ending}" for ending, number in endings.most_common())
        folder = str(next(iter(images.values())).parent)
        fix = "Convert them to one format, or import each kind into a data set of its own."
        raise DatasetError([Fault(folder, f"images of several formats ({found})", "one format", fix)])
    faults: list[Fault] = []
    channels: dict[int, list[str]] = {}
    for case, path in images.items():
        if not is_file_name(case):
            faults.append(Fault(str(path), f"the name {case!r}", "a name that a case can have", "Rename the file."))
        try:
            channels.setdefault(read_header(path)[0][0], []).append(path.name)
        except FileFormatError as error:
            faults.append(error.fault)
    if len(channels) > 1:
        found = "; ".join(f"{number} channels in {listed(names)}" for number, names in sorted(channels.items()))
        fix = "Save them all in grey or all in colour."
        faults.append(Fault(str(next(iter(images.values())).parent), found, "equal numbers of channels", fix))
    if faults:
        raise DatasetError(faults)
    return ImageFolder(dict(sorted(images.items())), next(iter(endings)), next(iter(channels)))


def dataset_json(
    folder: ImageFolder,
    names: Sequence[str],
    *,
    unknown: int | None,
    further: Mapping[str, Any] = MappingProxyType({}),
    channel_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the content of a dataset.json for images and label files of class indices.

    Parameters
    ----------
    folder
        The images.
    names
        (K,) of the classes.
    unknown
        Value of voxels of which nothing is known; None if label files have none.
    further
        Further keys.
    channel_names
        Names of the channels; None: red, green, blue for three, otherwise channel_0, channel_1, ...

    Raises
    ------
    ConfigError
        If the number of ``channel_names`` is not that of the channels.
    """
    check_channel_names(folder, channel_names)
    channels = channel_names or (
        _COLOURS if folder.n_channels == len(_COLOURS) else [f"channel_{index}" for index in range(folder.n_channels)]
    )
    labels = {name: index for index, name in enumerate(names)}
    return {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": labels | ({} if unknown is None else {"ignore": unknown}),
        "numTraining": len(folder.images),
        "file_ending": folder.ending,
        **further,
    }


def check_channel_names(folder: ImageFolder, channel_names: Sequence[str] | None) -> None:
    """Raise ``ConfigError`` if there are ``channel_names``, but not as many as channels."""
    if channel_names is not None and len(channel_names) != folder.n_channels:
        found, expected = f"{len(channel_names)} names", f"{folder.n_channels}, as many as channels"
        raise ConfigError(f"--channel-names: found {found}, expected {expected}. Correct it, or leave it out.")


def check_new(output: Path) -> None:
    """Raise ``ConfigError`` if ``output`` is a file, or a folder that is not empty."""
    if output.is_dir() and any(output.iterdir()):
        what = "a data set" if (output / DATASET_JSON).exists() else "files"
        raise ConfigError(f"{output}: contains {what}, expected a new folder. Delete it, or choose another -o.")
    if output.is_file():
        raise ConfigError(f"{output}: found a file, expected a new folder. Choose another -o.")


def _is_image(path: Path) -> bool:
    return any(has_ending(path.name, ending) for ending in SUPPORTED_ENDINGS)
