"""Cases to predict: image files in a folder, in a text file of paths, or alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

from autoseg.core.errors import ConfigError, DatasetError, Fault, FileFormatError
from autoseg.core.findings import counted, listed
from autoseg.core.location import ARRAY_ENDINGS
from autoseg.dataset.case_files import find_image_cases, resolved_path
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folder_files import has_ending, normal_name, passed_over, strays, visible
from autoseg.io.images import SUPPORTED_ENDINGS, ending_of, read_header, without_ending

log = logging.getLogger(__name__)

LIST_ENDING, COMMENT, SEPARATOR = ".txt", "#", "\t"
"""Of a text file of paths: its ending, the start of a comment, and what separates the channel files of a case."""
MAX_LINES = 10
"""Number of lines of such a file whose faults are described."""

Files = Sequence[str | Path]
Inputs = str | Path | Sequence[Files] | Mapping[str, Files]
Cases = dict[str, tuple[Path, ...]]
"""Case -> files in channel order."""


def input_cases(inputs: Inputs, dataset: Dataset) -> tuple[Cases, dict[str, str]]:
    """Return the cases to predict, and the images that belong to none (name -> reason).

    Parameters
    ----------
    inputs
        A folder with ``<case>_<CCCC><ending>``; an image, see :func:`channel_files`; a text file, see
        :func:`listed_cases`; case -> files; or a list with the files of each case, named after its first file.
    dataset
        Channels and file ending of the model.

    Raises
    ------
    DatasetError
        If there is no image, or a text file is faulty.
    ConfigError
        If a list of files has a case without files, or two cases of one name.
    FileFormatError
        If a list of files names one of an unknown format.
    """
    if isinstance(inputs, (str, Path)):
        return _cases_at(Path(inputs), dataset)
    if isinstance(inputs, Mapping):
        return {name: tuple(Path(file) for file in files) for name, files in inputs.items()}, {}
    cases: Cases = {}
    for files in inputs:
        paths = tuple(Path(file) for file in files)
        if not paths:
            raise ConfigError("inputs: found a case without files, expected one or more per case. Remove it.")
        name = case_name(paths[0])
        if name in cases:
            raise ConfigError(
                f"inputs: found two cases named {name!r}, expected one. Give a mapping from case to files."
            )
        cases[name] = paths
    return cases, {}


def case_name(file: Path) -> str:
    """Return the name of a case, given its first file: without ending and ``_0000``, in composed form (NFC).

    Raises ``FileFormatError`` if the ending is not that of an image.
    """
    return normal_name(without_ending(file).removesuffix("_0000"))


def channel_files(file: Path, n_channels: int) -> tuple[Path, ...]:
    """Return the files of the case of one image: of ``<case>_0000<ending>`` also those of further channels beside it.

    An image that has all channels, or another name, is a case alone; so is one that cannot be read, which is found when
    it is checked.
    """
    ending = ending_of(file)
    stem = without_ending(file)
    if n_channels == 1 or not stem.endswith("_0000"):
        return (file,)
    try:
        (own, *_), _ = read_header(file)
    except (FileFormatError, OSError):
        return (file,)
    if own >= n_channels:
        return (file,)
    others = (file.with_name(f"{stem[:-4]}{number:04d}{ending}") for number in range(1, n_channels))
    return (file, *(other for other in others if other.is_file()))


def listed_cases(path: Path, n_channels: int) -> Cases:
    """Return the cases of a text file of paths, in its order.

    Each line is a case: an image, see :func:`channel_files`, or the files of its channels separated by tabs. Paths that
    are relative start at the folder of the text file; ``$VARIABLE`` and ``~`` are expanded. Spaces belong to the path,
    but for those around it. Blank lines and lines that start with ``#`` are passed over. Names follow from
    :func:`case_name`.

    Raises ``DatasetError`` with the faults of the first ``MAX_LINES`` wrong lines, each of which it names: files that
    do not exist or are no images, and names that occurred before; also if there is no case.
    """
    cases: Cases = {}
    lines: dict[str, int] = {}
    faults: list[Fault] = []
    n_wrong = 0
    for number, texts in _lines(path):
        files = tuple(resolved_path(path.parent, text) for text in texts)
        where = f"{path}, line {number}"
        found = [*_file_faults(where, texts, files)] or [*_name_faults(where, files[0], lines, number)]
        if found:
            n_wrong += 1
            faults += found if n_wrong <= MAX_LINES else []
        else:
            cases[case_name(files[0])] = files if len(files) > 1 else channel_files(files[0], n_channels)
    if n_wrong > MAX_LINES:
        faults.append(Fault(str(path), f"{n_wrong - MAX_LINES} more wrong lines", "none", "Correct these first."))
    if not cases and not faults:
        faults.append(Fault(str(path), "no path", "one image a line", "Write the paths of the images into it."))
    if faults:
        raise DatasetError(faults)
    return cases


def _lines(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield (number, paths) of each line with a case; raise ``DatasetError`` if the file is no text."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and not line.lstrip().startswith(COMMENT):
                    yield number, tuple(text for part in line.split(SEPARATOR) if (text := part.strip()))
    except UnicodeDecodeError as error:
        fix = f"Save it as UTF-8; an image needs its own ending, not {LIST_ENDING}."
        raise DatasetError([Fault(str(path), "a file that is no text in UTF-8", "one path a line", fix)]) from error


def _file_faults(where: str, texts: Sequence[str], files: Sequence[Path]) -> Iterator[Fault]:
    """Yield the faults of the files of a line: those that are no files, or no images by their ending."""
    for text, file in zip(texts, files, strict=True):
        if not file.is_file():
            fix = "Correct the path; a relative one starts at the folder of the list."
            if len(text.split()) > 1:
                fix += " Channels of a case are separated by tabs, since paths may hold spaces."
            yield Fault(where, f"{'a folder' if file.is_dir() else 'no file'}, {file}", "an image", fix)
            continue
        try:
            ending_of(file)
        except FileFormatError as error:
            yield Fault(where, f"{file.name}: {error.fault.found}", error.fault.expected, error.fault.fix)


def _name_faults(where: str, file: Path, lines: dict[str, int], number: int) -> Iterator[Fault]:
    """Yield a fault if the name of a case occurred in an earlier line; otherwise note its line."""
    name = case_name(file)
    if name not in lines:
        lines[name] = number
        return
    fix = "Rename a file, remove the line, or give the lines a list and a folder -o of their own."
    yield Fault(where, f"the case {name!r}, as in line {lines[name]}", "another name: it is that of the output", fix)


def _cases_at(path: Path, dataset: Dataset) -> tuple[Cases, dict[str, str]]:
    """Return the cases of a folder, a text file or an image, and name -> reason for images that belong to no case."""
    is_list = has_ending(path.name, LIST_ENDING)
    is_image = any(has_ending(path.name, ending) for ending in SUPPORTED_ENDINGS)
    if path.is_dir() or not (path.is_file() or is_list or is_image):
        return _cases_in(path, dataset)
    if not path.is_file() or not (is_list or is_image):
        expected = f"a folder of images <case>_0000{dataset.file_ending}, an image, or a list of images ({LIST_ENDING})"
        found = "no such file" if not path.is_file() else "a file that is none of them"
        fix = "Check the path." if not path.is_file() else f"Give its folder, {path.parent}, or convert the image."
        raise DatasetError([Fault(str(path), found, expected, fix)])
    if is_list:
        return listed_cases(path, len(dataset.channels)), {}
    return {case_name(path): channel_files(path, len(dataset.channels))}, {}


def _cases_in(folder: Path, dataset: Dataset) -> tuple[Cases, dict[str, str]]:
    """Return the cases of a folder, and name -> reason for every image of the folder that belongs to no case."""
    ending = _ending_in(folder, dataset.file_ending)
    cases, faults = find_image_cases(folder, ending, len(dataset.channels))
    if not cases:
        raise DatasetError([*_volume_faults(folder, dataset)] or faults)
    for line in passed_over(folder, ending):
        log.warning("%s", line)
    unusable: dict[str, str] = {}
    for fault in (*faults, *strays(folder, ending)):
        if fault.where.lower().endswith(ARRAY_ENDINGS):
            fault = replace(fault, fix=f"Predict it by itself: -i {quote(fault.where)}.")
        for case in fault.cases:
            unusable[Path(fault.where).name if case in cases or case in unusable else case] = str(fault)
    return dict(cases), unusable


def _volume_faults(folder: Path, dataset: Dataset) -> Iterator[Fault]:
    """Yield a fault if a folder without images holds volumes, which are predicted one by one."""
    names = [path.name for path in visible(folder)] if folder.is_dir() else []
    names = [name for name in names if name.lower().endswith(ARRAY_ENDINGS)]
    if not names:
        return
    stem, ending = Path(names[0]).stem, Path(names[0]).suffix
    channels = [names[0]]
    if stem.endswith("_0000"):
        numbered = (f"{stem[:-4]}{number:04d}{ending}" for number in range(len(dataset.channels)))
        channels = [name for name in numbered if name in names]
    given = " ".join(quote(str(folder / name)) for name in channels)
    found = f"no images, but {counted(len(names), 'volume')}: {listed(names)}"
    fix = f"Volumes are predicted one by one: write -i {given} instead of -i {quote(str(folder))}."
    yield Fault(str(folder), found, f"image files <case>_0000{dataset.file_ending}", fix)


def _ending_in(folder: Path, preferred: str) -> str:
    """Return the ending of the images in ``folder``: ``preferred`` if a file has it, otherwise the only supported one.

    Without images it is ``preferred``. Raises ``DatasetError`` if there are several others.
    """
    if not folder.is_dir():
        return preferred
    names = [path.name for path in visible(folder)]
    if any(has_ending(name, preferred) for name in names):
        return preferred
    numbered = {
        ending: sorted(name for name in names if has_ending(name, f"_0000{ending}")) for ending in SUPPORTED_ENDINGS
    }
    numbered = {ending: of_kind for ending, of_kind in numbered.items() if of_kind}
    if len(numbered) > 1:
        there = "; ".join(listed(of_kind, len(of_kind)) for _, of_kind in sorted(numbered.items()))
        raise DatasetError(
            [Fault(str(folder), f"images ending in {sorted(numbered)}", f"one ending, or the model's {preferred}",
                   f"Put the formats into folders of their own ({there}).")]
        )  # fmt: skip
    return next(iter(numbered), preferred)
