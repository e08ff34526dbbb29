"""Which cases weights were trained on, and how a case is recognised under another name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

_PIECE = 1 << 22  # voxels summed at once, so that a volume needs no copy of 8 bytes a voxel
_ODD = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))


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
    """Hash the sorted lengths of the axes and sums over the voxels, modulo 2^64, which do not depend on their order."""
    flat = channel.reshape(-1)
    if flat.size == 0 or bool((flat == flat[0]).all()):
        return ""
    sums = [0, 0, 0]
    for start in range(0, flat.size, _PIECE):
        bits = (flat[start : start + _PIECE].astype(np.float32) + np.float32(0)).view(np.uint32).astype(np.uint64)
        for index, mixed in enumerate((bits, _mixed(bits, _ODD[0]), _mixed(bits, _ODD[1]))):
            sums[index] += int(mixed.sum(dtype=np.uint64))
    edges = sorted(edge for edge in channel.shape if edge > 1)
    text = json.dumps([edges, [total % 2**64 for total in sums]])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _mixed(bits: NDArray[np.uint64], odd: np.uint64) -> NDArray[np.uint64]:
    """Return numbers that are no linear function of ``bits``, so that sums of them tell histograms apart."""
    mixed: NDArray[np.uint64] = (bits + odd) * odd
    mixed ^= mixed >> np.uint64(29)
    mixed *= odd
    mixed ^= mixed >> np.uint64(32)
    return mixed
