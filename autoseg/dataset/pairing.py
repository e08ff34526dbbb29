"""Pairs of images and masks by their file names: 0001.tif with 0001_mask.png, img_7.png with mask_7.tif.

An image and its mask share an ID. The rest of a name, in front of it or behind, is the same for all images and for all
masks, and is found from the names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.errors import DatasetError, Fault
from autoseg.core.findings import listed
from autoseg.dataset.folder_files import PICTURE_ENDINGS, VOLUME_ENDINGS, has_ending, normal_name

_FIRST_CHANNEL = "_0000"
"""End of the names of images of one channel in a data set: ``<case>_0000``."""
_UP_TO_SEPARATOR = re.compile(r".*[-_. ]|")


@dataclass(frozen=True, slots=True)
class Affixes:
    """What a file name holds in front of an ID and behind it."""

    before: str = ""
    after: str = ""

    def around(self, identifier: str) -> str:
        """Return the name (without ending) of the file with an ID."""
        return f"{self.before}{identifier}{self.after}"


@dataclass(frozen=True, slots=True)
class Pairing:
    """Images with their masks."""

    pairs: Mapping[str, tuple[Path, Path]]
    """Case -> (image, mask), sorted by name: that of the image without ending, and without the ``_0000`` of all."""
    mask: Affixes
    """Of the names of masks, around the ID."""
    images_alone: tuple[Path, ...]
    """Images without a mask."""
    masks_alone: tuple[Path, ...]
    """Masks without an image."""


def bare_name(path: Path) -> str:
    """Return the name of an image file without its ending (``.nii.gz`` is one), in composed form."""
    known = next((end for end in (*VOLUME_ENDINGS, *PICTURE_ENDINGS) if has_ending(path.name, end)), path.suffix)
    return normal_name(path.name[: len(path.name) - len(known)])


def pair_by_name(images: Sequence[Path], masks: Sequence[Path], *, suffix: str | None = None) -> Pairing:
    """Pair images and masks whose names hold the same ID.

    The ID of an image is its name without ending, and without what all images have in front or behind up to a separator
    (``_ - .`` or a blank), or without the ``_0000`` that images of a data set have. A mask belongs to an image if its
    name is the ID with the affixes that most masks have. An ID never ends within a number or a word: ``10_mask`` is not
    the mask of image ``1``.

    Parameters
    ----------
    images, masks
        Files; names of one list differ in more than their endings.
    suffix
        What masks have behind the ID (``_mask``), if it is known; it is not searched for then.

    Returns
    -------
    Pairing
        Without any pair if no name fits.

    Raises
    ------
    DatasetError
        If two files of one list have the same name, or affixes fit equally many masks and disagree.
    """
    image_of, mask_of = _by_name(images), _by_name(masks)
    best: dict[str, str] = {}
    chosen = Affixes(after=suffix or "")
    for shared in _shared_affixes(list(image_of)):
        ids = {_stripped(name, shared): name for name in image_of}
        if len(ids) < len(image_of) or "" in ids:
            continue
        affixes = _common_affixes(ids, mask_of, suffix)
        found = {ids[item]: affixes.around(item) for item in ids if affixes.around(item) in mask_of}
        if len(found) > len(best):
            best, chosen = found, affixes
    channel = _FIRST_CHANNEL if _have_channel(list(image_of)) else ""
    pairs = {name.removesuffix(channel): (image_of[name], mask_of[mask]) for name, mask in sorted(best.items())}
    used = set(best.values())
    return Pairing(
        pairs,
        chosen,
        tuple(path for name, path in image_of.items() if name not in best),
        tuple(path for name, path in mask_of.items() if name not in used),
    )


def _by_name(paths: Sequence[Path]) -> dict[str, Path]:
    """Return bare name -> file; raise DatasetError if two files have the same."""
    names = Counter(bare_name(path) for path in paths)
    faults = [
        Fault(
            str(paths[0].parent), f"several files named {name!r} with different endings",
            "one file for each name", "Remove all but one.",
        )
        for name, number in names.items() if number > 1
    ]  # fmt: skip
    if faults:
        raise DatasetError(faults)
    return {bare_name(path): path for path in sorted(paths)}


def _shared_affixes(names: Sequence[str]) -> list[Affixes]:
    """Return what may surround the IDs of images with these names: nothing, or what all names share."""
    channel = [Affixes(after=_FIRST_CHANNEL)] if _have_channel(names) else []
    if len(names) < 2:
        return [Affixes(), *channel]
    front = _up_to_separator(_shared_start(names))
    back = _up_to_separator(_shared_start([name[::-1] for name in names]))[::-1]
    return list(dict.fromkeys((Affixes(), *channel, Affixes(after=back), Affixes(front), Affixes(front, back))))


def _have_channel(names: Sequence[str]) -> bool:
    """Whether all names are of the form ``<case>_0000``."""
    return all(name.removesuffix(_FIRST_CHANNEL) not in ("", name) for name in names)


def _up_to_separator(text: str) -> str:
    match = _UP_TO_SEPARATOR.match(text)
    return match.group() if match else ""


def _shared_start(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    length = next((n for n, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[:length]


def _stripped(name: str, affixes: Affixes) -> str:
    return name[len(affixes.before) : len(name) - len(affixes.after)]


def _common_affixes(ids: Collection[str], masks: Collection[str], suffix: str | None) -> Affixes:
    """Return the affixes with which most IDs are names of masks; none if no ID is part of one."""
    votes = Counter(affixes for mask in masks for affixes in _possible_affixes(mask, ids))
    if suffix is not None:
        votes = Counter({affixes: number for affixes, number in votes.items() if affixes.after == suffix})
    if not votes:
        return Affixes(after=suffix or "")
    (most, number), *others = votes.most_common()
    rivals = [other for other, count in others if count == number]
    if rivals and number > 1:
        _refuse_rivals([most, *rivals], number)
    return min([most, *rivals], key=lambda affixes: (len(affixes.before) + len(affixes.after), affixes.before))


def _possible_affixes(mask: str, ids: Collection[str]) -> set[Affixes]:
    """Return what surrounds an ID that begins or ends the name of a mask, as a whole word or number."""
    cuts = [(mask[:cut], mask[cut:]) for cut in range(len(mask) + 1)]
    whole = [(left, right) for left, right in cuts if not _continues(left, right)]
    behind = {Affixes(after=right) for left, right in whole if left in ids}
    return behind | {Affixes(before=left) for left, right in whole if right in ids}


def _continues(left: str, right: str) -> bool:
    """Whether a word or a number goes on from ``left`` to ``right``."""
    if not left or not right:
        return False
    return (left[-1].isdigit() and right[0].isdigit()) or (left[-1].isalpha() and right[0].isalpha())


def _refuse_rivals(rivals: Sequence[Affixes], number: int) -> None:
    shown = listed([affixes.around("ID") for affixes in rivals])
    raise DatasetError(
        [
            Fault(
                "masks", f"names of two kinds, {shown}, for {number} images each", "one mask for each image",
                "Say what follows the ID, for example --mask-suffix _mask, or move the others to another folder.",
            )
        ]
    )  # fmt: skip
