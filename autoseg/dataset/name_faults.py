"""Faults of file names, with a shell command that renames the files; files with the same fault share one message."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from autoseg.core.errors import Fault
from autoseg.core.findings import counted, listed
from autoseg.dataset.folder_files import CaseFault, renaming

_SEPARATORS = "_-. "
_DIGITS = re.compile(r"(.+)_([0-9]{1,3}|[0-9]{5})")


def number_faults(folder: Path, files: Mapping[str, Path], ending: str, n_channels: int) -> list[CaseFault]:
    """Return the faults of images (stem -> file) without a channel number of four digits.

    If the last digits can only be channel numbers (every case has 0 to n - 1), digits are missing; otherwise the names
    have no channel number.
    """
    numbered = {stem: match for stem in files if (match := _DIGITS.fullmatch(stem))}
    of_case: dict[tuple[str, int], set[int]] = {}
    for match in numbered.values():
        of_case.setdefault((match[1], len(match[2])), set()).add(int(match[2]))
    kinds: dict[int, dict[str, tuple[str, str]]] = {}  # number of digits -> stem -> (case, name as it should be)
    plain: list[str] = []
    for stem, path in files.items():
        known = numbered.get(stem)
        numbers = of_case[known[1], len(known[2])] if known else set()
        if known and len(numbers) <= n_channels and numbers == set(range(len(numbers))):
            right = f"{known[1]}_{int(known[2]):04d}{path.name[-len(ending) :]}"
            kinds.setdefault(len(known[2]), {})[stem] = (known[1], right)
        else:
            plain.append(stem)
    faults = [_digits_fault(folder, digits, stems, files, ending) for digits, stems in kinds.items()]
    return faults + _unnumbered(folder, plain, files, ending)


def _digits_fault(
    folder: Path, digits: int, stems: Mapping[str, tuple[str, str]], files: Mapping[str, Path], ending: str
) -> CaseFault:
    pattern = "[0-9]" * digits
    change = '"${f%_*}_' + "0" * (4 - digits) + '${f##*_}"' if digits < 4 else '"${f%_*}_${f##*_0}"'
    loop = f'for f in *_{pattern}{ending}; do mv -n "$f" {change}; done'
    names = [files[stem].name for stem in stems]
    fix = renaming(folder, ((files[stem].name, right) for stem, (_, right) in stems.items()), loop)
    return CaseFault(
        str(folder),
        f"channel numbers of {counted(digits, 'digit')} ({listed(names, 3)})",
        f"four digits, <case>_0000{ending}",
        f"Rename: {fix}",
        tuple(dict.fromkeys(case for case, _ in stems.values())),
    )


def _unnumbered(folder: Path, stems: Sequence[str], files: Mapping[str, Path], ending: str) -> list[CaseFault]:
    expected = f"<case>_<four-digit channel>{ending}"
    if len(stems) <= 2:
        return [_one_unnumbered(folder, files[stem].name, f"{stem}_0000{ending}", expected) for stem in stems]
    names = [files[stem].name for stem in stems]
    number = "[0-9]" * 4
    loop = (
        f'for f in *{ending}; do case "$f" in *_{number}{ending}) ;; '
        f'*) mv -n "$f" "${{f%{ending}}}_0000{ending}" ;; esac; done'
    )
    found = f"{len(names)} names without channel number ({listed(names)})"
    return [
        CaseFault(
            str(folder),
            found,
            expected,
            f"Rename them: {renaming(folder, ((name, name) for name in names), loop)}",
            tuple(names),
        )
    ]


def _one_unnumbered(folder: Path, name: str, right: str, expected: str) -> CaseFault:
    fix = f"Rename it, say to {right}: {renaming(folder, [(name, right)], '')}"
    return CaseFault(str(folder / name), "a name without channel number", expected, fix, (name,))


def unpaired_faults(
    images: Mapping[str, Sequence[Path]], labels: Mapping[str, Path], folder: Path, ending: str, taken: Collection[str]
) -> list[Fault]:
    """Return the faults of images without label and labels without image.

    Names that differ in the same way share one fault: a suffix or prefix of all label names, or upper case. All others
    have a fault each.

    Parameters
    ----------
    images, labels
        Case -> files, of images and labels without counterpart.
    folder
        Folder of the label files.
    taken
        Cases of the other label files, which must not be renamed.
    """
    faults: list[Fault] = []
    labels, images = dict(labels), dict(images)
    for find in (_by_suffix, _by_letters, _by_prefix):
        for pairs, what, loop in find(images, labels, ending):
            is_safe = all(path.name.endswith(ending) for path in labels.values()) and not taken
            moves = [(labels[label].name, f"{case}{labels[label].name[-len(ending) :]}") for case, label in pairs]
            command = renaming(folder, moves, loop if is_safe else "")
            shown = listed((f"{old} for case {case}" for (case, _), (old, _) in zip(pairs, moves, strict=True)), 3)
            found = f"{counted(len(pairs), 'label file')} {what} ({shown})"
            faults.append(Fault(str(folder), found, f"the name of the case, <case>{ending}", f"Rename: {command}"))
            for case, label in pairs:
                del labels[label], images[case]
    return faults + _one_by_one(images, labels, folder, ending)


_Renaming = tuple[list[tuple[str, str]], str, str]
"""Pairs (case, stem of its label file), the fault of these stems, and a shell loop that renames all of them."""


def _by_suffix(images: Mapping[str, object], labels: Iterable[str], ending: str) -> list[_Renaming]:
    groups: dict[str, dict[str, str]] = {}
    for label in labels:
        ends = (at for at in reversed(range(len(label))) if label[at] in _SEPARATORS)
        case = next((label[:end] for end in ends if label[:end] in images), None)
        if case is not None:
            groups.setdefault(label[len(case) :], {})[case] = label
    used: set[str] = set()
    renamings = []
    for suffix, pairs in sorted(groups.items(), key=lambda item: -len(item[1])):
        fresh = [(case, label) for case, label in pairs.items() if case not in used]
        used.update(case for case, _ in fresh)
        is_plain = re.fullmatch(r"[\w.-]+", suffix) is not None
        loop = f'for f in *{suffix}{ending}; do mv -n "$f" "${{f%{suffix}{ending}}}{ending}"; done' if is_plain else ""
        if fresh:
            renamings.append((fresh, f"with {suffix!r} behind the name", loop))
    return renamings


def _by_letters(images: Mapping[str, object], labels: Iterable[str], ending: str) -> list[_Renaming]:
    by_fold = _unique(images, str.casefold)
    pairs = [(by_fold[fold], label) for fold, label in _unique(labels, str.casefold).items() if fold in by_fold]
    return [(pairs, "that differ from the image in capital and small letters", "")] if pairs else []


def _by_prefix(images: Mapping[str, object], labels: Iterable[str], ending: str) -> list[_Renaming]:
    named = list(labels)
    if len(named) < 2 or len(named) != len(images):
        return []
    own, others = _shared_start(named), _shared_start(images)
    pairs = [(others + label[len(own) :], label) for label in named]
    if any(case not in images for case, _ in pairs):
        return []
    is_plain = all(re.fullmatch(r"[\w.-]*", part) for part in (own, others))
    loop = f'for f in {own}*{ending}; do mv -n "$f" "{others}${{f#{own}}}"; done' if is_plain else ""
    return [(pairs, f"whose names begin with {own!r}, not {others!r}", loop)]


def _shared_start(names: Iterable[str]) -> str:
    first, last = min(names), max(names)
    n_shared = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return first[:n_shared]


def _unique(names: Iterable[str], key: Callable[[str], str]) -> dict[str, str]:
    """Return key -> name for names whose key is unique."""
    by_key: dict[str, list[str]] = {}
    for name in names:
        by_key.setdefault(key(name), []).append(name)
    return {folded: of_key[0] for folded, of_key in by_key.items() if len(of_key) == 1}


def _one_by_one(
    images: Mapping[str, Sequence[Path]], labels: Mapping[str, Path], folder: Path, ending: str
) -> list[Fault]:
    return [
        Fault(
            str(files[0]), "an image without label", f"a label file {folder.name}/{case}{ending}",
            "Add the label file, or move the image to imagesTs.",
        )
        for case, files in images.items()
    ] + [
        Fault(
            str(path), "a label without image", f"an image file imagesTr/{case}_0000{ending}",
            "Add the image, or remove the label file.",
        )
        for case, path in labels.items()
    ]  # fmt: skip
