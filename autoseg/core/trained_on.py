"""Which cases weights were trained on, and how a case is recognised under another name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.core.chunks import CACHED_VOXELS, chunks

_ODD = tuple(np.uint32(number) for number in (0x9E3779B1, 0x85EBCA77))


class TrainedCase(BaseModel):
    """A case that weights were trained on."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    """Name of its data set."""
    case: str
    images: tuple[str, ...] = ()
    """:func:`image_contents`; () where they are not known."""


def image_contents(image: NDArray[Any]) -> tuple[str, ...]:
    """Return 32 hexadecimal digits per channel that follow from its voxels alone; "" for a constant channel.

    They do not depend on the name, format, compression or number type of the file, nor on the order of axes and voxels:
    a copy that was renamed, converted or flipped has the same. One that was resampled, cropped or rescaled has not.

    Parameters
    ----------
    image
        (C, *S) numbers; compared as float32.
    """
    return tuple(_content(channel) for channel in image)


def recognise(
    contents: Mapping[str, tuple[str, ...]], dataset: str, trained: Iterable[TrainedCase]
) -> dict[str, TrainedCase]:
    """Return those of the cases that weights were trained on, each with the trained case that it is.

    A case is recognised by the names of data set and case, or by an image of the same content in any channel.

    Parameters
    ----------
    contents
        Case -> its :func:`image_contents`, () where they are not known.
    dataset
        Name of their data set.
    trained
        What the weights were trained on.
    """
    by_name: dict[tuple[str, str], TrainedCase] = {}
    by_content: dict[str, TrainedCase] = {}
    for item in trained:
        by_name.setdefault((item.dataset, item.case), item)
        for content in filter(None, item.images):
            by_content.setdefault(content, item)
    found = {
        case: by_name.get((dataset, case)) or next((by_content[image] for image in images if image in by_content), None)
        for case, images in contents.items()
    }
    return {case: item for case, item in found.items() if item is not None}


def joined(*parts: Iterable[TrainedCase]) -> tuple[TrainedCase, ...]:
    """Return the cases of all parts, each once, in order of data set and case."""
    unique = dict.fromkeys(item for part in parts for item in part)
    return tuple(sorted(unique, key=lambda item: (item.dataset, item.case, item.images)))


def _content(channel: NDArray[Any]) -> str:
    """Hash the sorted lengths of the axes and sums over the voxels, which do not depend on their order."""
    flat = channel.reshape(-1)
    if flat.size == 0:
        return ""
    sums, is_constant = [0] * len(_ODD), True
    for chunk in chunks(flat.size, CACHED_VOXELS):
        values = flat[chunk].astype(np.float32)
        values += np.float32(0)  # so that -0 is 0
        is_constant = is_constant and bool((values == np.float32(flat[0])).all())
        for index, odd in enumerate(_ODD):
            sums[index] += int(_mixed(values.view(np.uint32), odd).sum(dtype=np.uint64))
    if is_constant:
        return ""
    text = json.dumps([sorted(edge for edge in channel.shape if edge > 1), sums])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _mixed(bits: NDArray[np.uint32], odd: np.uint32) -> NDArray[np.uint32]:
    """Return numbers that are no linear function of ``bits``, so that sums of them tell histograms apart."""
    mixed: NDArray[np.uint32] = bits ^ odd
    mixed *= odd
    mixed ^= mixed >> np.uint32(15)
    mixed *= odd
    mixed ^= mixed >> np.uint32(13)
    return mixed
