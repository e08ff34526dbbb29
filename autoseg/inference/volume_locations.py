"""Location of a volume among the inputs of a prediction, and the name of its case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from autoseg.core.errors import ConfigError
from autoseg.core.location import ARRAY_ENDINGS, parse_location, split_box
from autoseg.core.plan import Plan
from autoseg.dataset.folder_files import visible
from autoseg.inference.input_cases import Inputs
from autoseg.inference.volume_options import VolumeOptions
from autoseg.io.chunked import is_chunked
from autoseg.io.images import SUPPORTED_ENDINGS

_ENDINGS = (*ARRAY_ENDINGS, ".json")
"""Endings of volumes that are no image files."""
_PICTURES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
"""Endings of sections."""


def volume_locations(inputs: Inputs, options: VolumeOptions, plan: Plan) -> tuple[str, ...]:
    """Return the locations of the volume that is given, its channels in order; () if what is given are cases.

    A volume is an array in Zarr, N5, Precomputed, HDF5, NumPy or described as tiles; a folder of sections, pictures
    of which none is named ``_0000``, unless the model was trained on such pictures; with ``options.is_forced`` any
    image file. Raises ``ConfigError`` if the options are for volumes, and cases are given.
    """
    given: Sequence[str | Path] = ()
    if isinstance(inputs, (str, Path)):
        given = (inputs,)
    elif not isinstance(inputs, Mapping) and len(inputs) == 1:
        given = tuple(inputs[0])
    if given and (options.is_forced or any(_is_volume(item, plan) for item in given)):
        return tuple(str(item) for item in given)
    if options != VolumeOptions():
        raise ConfigError(
            "--blockwise, --memory-gb, --part, --write-as: found images, expected a volume, such as "
            "-i volume.zarr, or one image file with --blockwise. Leave them out."
        )
    return ()


def _is_volume(location: str | Path, plan: Plan) -> bool:
    whole, box = split_box(location)
    path, inner = parse_location(whole)
    if box is not None or inner or path.suffix.lower() in _ENDINGS:
        return True
    if not path.is_dir() or is_chunked(path):
        return path.is_dir()
    names = [item.name.lower() for item in visible(path) if item.is_file()]
    pictures = [name for name in names if name.endswith(_PICTURES)]
    return bool(pictures) and not plan.is_of_2d_images and not any("_0000." in name for name in names)


def case_name(location: str) -> str:
    """Return the name of the case of a location: of the file or folder, of the array in it, and the box."""
    whole, box = split_box(location)
    path, inner = parse_location(whole)
    stem = path.name
    for ending in (*_ENDINGS, *SUPPORTED_ENDINGS):
        stem = stem.removesuffix(ending)
    parts = [stem.removesuffix("_0000"), *(part for part in inner.split("/") if part)]
    if box is not None:
        parts += [f"{start}-{stop}" for start, stop in zip(box.start, box.stop, strict=True)]
    return "_".join(parts)
