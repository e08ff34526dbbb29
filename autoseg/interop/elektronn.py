"""Conversion of ELEKTRONN's training cubes (HDF5, -1 for unlabelled, lazy labels) into a data set of autoseg."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.label_counts import count_values
from autoseg.core.arrays import BoolArray, Shape3
from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError, DatasetError, Fault, FileFormatError
from autoseg.core.findings import Findings, listed
from autoseg.core.geometry import Geometry
from autoseg.core.progress import Progress, silent
from autoseg.dataset.case_files import is_file_name
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.interop.elektronn_cubes import ConversionSettings, Cube
from autoseg.io.hdf5 import Hdf5Array, find_array, has_array, parse_array, read_array
from autoseg.io.images import write_labels
from autoseg.io.volumes import write_volume

log = logging.getLogger(__name__)

INFO = "info"
"""Name of the data set with the lazy labels, in the file of the labels."""
FOUR_AXES = {"xyz": "cxyz", "zxy": "zcxy"}
"""ELEKTRONN's two axis orders (the second with ``zchxy_order``) -> order of images with channels."""
WRAPPED = tuple(2**bits - 1 for bits in (8, 16, 32, 64))
"""Values that -1 becomes when it is stored without a sign."""


@dataclass(frozen=True, slots=True)
class LazyInfo:
    """Statements of a label file about whole classes; K classes."""

    labelled: BoolArray
    """(K,) bool: every voxel of the class is annotated."""
    not_present: BoolArray
    """(K,) bool: there is no voxel of the class."""


@dataclass(frozen=True, slots=True)
class _CubeContent:
    """Content of the files of a cube."""

    cube: Cube
    image: Hdf5Array
    label: Hdf5Array
    info: LazyInfo | None
    n_channels: int
    n_slices: int
    """Of the image, along z."""
    margin: Shape3
    """Unlabelled voxels around the labels on each side, (z, y, x)."""
    counts: Mapping[int, int]
    """Label value -> voxels."""

    def cases(self, settings: ConversionSettings) -> tuple[str, ...]:
        """Names of the cases that the cube becomes: one, or one for each slice."""
        name = self.cube.name
        return tuple(f"{name}_z{z:04d}" for z in range(self.n_slices)) if settings.slices else (name,)


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """Cases and classes that were written."""

    cases_of: Mapping[str, tuple[str, ...]]
    """Cube -> names of its cases: its own, or those of its slices."""
    class_names: tuple[str, ...]
    annotated_fraction: Mapping[str, float] = field(default_factory=dict)
    """Case -> share of its voxels with a label, 0 to 1."""

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of all cases."""
        return tuple(case for cases in self.cases_of.values() for case in cases)


def convert(
    cubes: Sequence[Cube], output: Path, settings: ConversionSettings, *,
    progress: Progress = silent,
) -> ConversionReport:  # fmt: skip
    """Write a data set from ELEKTRONN's cubes into a new folder; nothing is written if one of them has a fault.

    Negative labels, and voxels around labels that are smaller than their image, become the ignore label. The masks in
    ``info`` become ``annotated`` and ``absent`` of the case, with ELEKTRONN's meaning (``lazy_semantics: seed``). Image
    values are not changed: the plan's normalisation replaces ELEKTRONN's division by 255. ``progress`` is called with
    (cubes done, cubes in all, name).

    Raises
    ------
    ConfigError
        If the output folder is not empty, there is no cube, or h5py is not installed.
    DatasetError
        With every fault of every cube: files that cannot be read or lack the named data set, and wrong content.

    Notes
    -----
    Source: ELEKTRONN ``elektronn/training/CNNData.py`` (``_read_images``, ``_stripCubes``) and its documentation.
    We differ in two points: voxels without labels around a cube are unknown (there: class 0), and labels of classes
    that do not exist are refused (there: ignored).
    """
    if output.is_dir() and any(output.iterdir()):
        what = "a data set" if (output / DATASET_JSON).exists() else "files"
        raise ConfigError(f"{output}: contains {what}, expected a new folder. Delete it, or choose another -o.")
    findings = Findings("cubes")
    _check_names(cubes, findings)
    contents = _examine_all(cubes, settings, findings)
    names = _class_names(contents, settings, findings)
    for item in contents:
        _check_classes(item, names, findings)
    _check_channels(contents, settings, findings)
    findings.raise_if_faulty()
    Dataset.from_json(_dataset_json(contents, names, settings, is_dense=False), name=output.name, folder=None)
    fractions: dict[str, float] = {}
    for done, item in enumerate(contents, 1):
        fractions |= _write_cube(item, output, settings, ignore=len(names))
        progress(done, len(contents), item.cube.name)
    write_json(output / DATASET_JSON, _dataset_json(contents, names, settings, is_dense=min(fractions.values()) == 1))
    Dataset.load(output)
    return ConversionReport({item.cube.name: item.cases(settings) for item in contents}, names, fractions)


def to_czyx(array: NDArray[Any], axes: str) -> NDArray[Any]:
    """Return an image or label map as a view in the order (C, z, y, x); without channels, C is 1.

    ``axes`` names those of the file; its ``c`` is ignored if the array has three axes. Raises ``ValueError`` if the
    number of axes does not fit.
    """
    named = FOUR_AXES.get(axes, axes) if array.ndim == 4 else axes.replace("c", "")
    if array.ndim != len(named):
        raise ValueError(f"{array.ndim} axes {array.shape}, expected {' or '.join(sorted({named, axes}))}")
    whole = array[None] if array.ndim == 3 else array
    order = ("c" + named) if array.ndim == 3 else named
    return whole.transpose([order.index(axis) for axis in "czyx"])


def lazy_info(array: NDArray[Any]) -> LazyInfo:
    """Return the statements of an ``info`` data set (2, K); raise ``ValueError`` if it does not hold only 0 and 1."""
    if array.ndim != 2 or len(array) != 2 or not np.isin(array, (0, 1)).all():
        raise ValueError(f"shape {array.shape} with the values {listed(np.unique(array).tolist())}")
    return LazyInfo(array[0] == 1, array[1] == 1)


def _check_names(cubes: Sequence[Cube], findings: Findings) -> None:
    if not cubes:
        raise ConfigError("cubes: none given, expected at least one. Give --images and --labels.")
    twice = [name for name, count in Counter(cube.name for cube in cubes).items() if count > 1]
    if twice:
        findings.fault(
            "names", found=f"several cases named {listed(twice)}", expected="a name of its own for each",
            fix="Give them with --case-names.",
        )  # fmt: skip
    for name in sorted({cube.name for cube in cubes if not is_file_name(cube.name)}):
        findings.fault(
            "names", found=f"the case name {name!r}", expected="a name that files can have: no folder, no dot in front",
            fix="Give another one with --case-names.",
        )  # fmt: skip


def _examine_all(cubes: Sequence[Cube], settings: ConversionSettings, findings: Findings) -> list[_CubeContent]:
    """Read the files of all cubes; raise ``DatasetError`` with the faults of all that cannot be read."""
    contents: list[_CubeContent] = []
    unreadable: list[Fault] = []
    for cube in cubes:
        try:
            item = _examine(cube, settings, findings)
        except FileFormatError as error:
            unreadable.append(error.fault)
        else:
            contents += [] if item is None else [item]
    if unreadable:
        raise DatasetError([*unreadable, *findings.faults])
    return contents


def _examine(cube: Cube, settings: ConversionSettings, findings: Findings) -> _CubeContent | None:
    """Read the files of a cube; None, and a fault in ``findings``, if they cannot be used."""
    try:
        image, label = find_array(*parse_array(cube.image)), find_array(*parse_array(cube.label), others=(INFO,))
        info = lazy_info(read_array(Hdf5Array(label.path, INFO))) if has_array(label.path, INFO) else None
    except ValueError as error:
        findings.fault(
            f"{cube.name}: {INFO}", found=str(error), expected="(2, number of classes) with 0 and 1: which classes are "
            "labelled, and which are not present", fix="Correct or remove it.",
        )  # fmt: skip
        return None
    return _examine_arrays(cube, image, label, info, settings, findings)


def _examine_arrays(
    cube: Cube,
    image: Hdf5Array,
    label: Hdf5Array,
    info: LazyInfo | None,
    settings: ConversionSettings,
    findings: Findings,
) -> _CubeContent | None:
    """Check an image and its labels, both (x, y, z) in any order; None, and a fault, if they cannot be used."""
    labels = read_array(label)
    try:
        n_channels, *shape = to_czyx(read_array(image), settings.axes).shape
        if labels.size == 0 and info is not None:  # a cube of ELEKTRONN without any annotated voxel, only info
            return _CubeContent(cube, image, label, info, n_channels, shape[0], (0, 0, 0), {})
        drawn = to_czyx(labels, settings.axes.replace("c", ""))[0]
    except ValueError as error:
        findings.fault(cube.name, found=str(error), expected="an image and labels per voxel", fix="Correct --axes.")
        return None
    if labels.size == 0:
        findings.fault(
            cube.name, found="no labels and no info", expected="labels per voxel, or info about the whole cube",
            fix="Leave the cube out.",
        )  # fmt: skip
        return None
    surplus = [whole - inner for whole, inner in zip(shape, drawn.shape, strict=True)]
    if min(surplus) < 0 or any(rest % 2 for rest in surplus):
        findings.fault(
            cube.name, found=f"an image of {_xyz(shape)} and labels of {_xyz(drawn.shape)} voxels (x, y, z)",
            expected="labels as large as the image, or smaller by the same number of voxels on both sides",
            fix="Labels share the image's centre: cut or pad them.",
        )  # fmt: skip
        return None
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.rint(labels)):
        findings.fault(
            cube.name, found="labels that are no whole numbers", expected="classes, -1 where nothing is labelled",
            fix="Labels for regression are not supported: write classes.",
        )  # fmt: skip
        return None
    z, y, x = (rest // 2 for rest in surplus)
    return _CubeContent(cube, image, label, info, n_channels, shape[0], (z, y, x), count_values(drawn))


def _xyz(shape: Sequence[int]) -> str:
    """Return a shape (z, y, x) as text in the order x, y, z."""
    return " x ".join(str(edge) for edge in reversed(shape))


def _class_names(contents: Sequence[_CubeContent], settings: ConversionSettings, findings: Findings) -> tuple[str, ...]:
    """Return the names of all classes; their number is given, or stated in ``info``, or that of the largest label."""
    stated = sorted({len(item.info.labelled) for item in contents if item.info is not None})
    largest = max((value for item in contents for value in item.counts), default=0)
    if largest in WRAPPED and not (settings.class_names or stated):
        findings.fault(
            "labels", found=f"the label {largest}, and neither --names nor info", expected="classes, and -1 where "
            "nothing is labelled: as an unsigned number it becomes such a value", fix="Write -1, or name all classes.",
        )  # fmt: skip
        largest = 1
    n_classes = len(settings.class_names) if settings.class_names else stated[-1] if stated else max(1, largest) + 1
    for item in contents:
        if item.info is not None and len(item.info.labelled) != n_classes:
            findings.fault(
                f"{item.cube.name}: {INFO}", found=f"{len(item.info.labelled)} classes", expected=f"{n_classes}",
                fix="Name all classes with --names, and correct the masks.",
            )  # fmt: skip
    return settings.class_names or ("background", *(f"class_{index}" for index in range(1, n_classes)))


def _check_classes(item: _CubeContent, names: Sequence[str], findings: Findings) -> None:
    """Report labels of classes that do not exist, or that ``info`` states are not present."""
    unknown = {value: number for value, number in item.counts.items() if value >= len(names)}
    if unknown:
        unknown_labels = ", ".join(f"{value} ({number} voxels)" for value, number in sorted(unknown.items())[:5])
        findings.fault(
            f"{item.label}", found=f"the labels {unknown_labels}",
            expected=f"0 to {len(names) - 1}, or -1 where nothing is labelled",
            fix="Name all classes with --names; -1 stored as an unsigned number must be written as -1.",
        )  # fmt: skip
    if item.info is None or len(item.info.labelled) != len(names):
        return
    drawn = [index for index in range(len(names)) if item.counts.get(index)]
    contradicted = [names[index] for index in drawn if item.info.labelled[index] and item.info.not_present[index]]
    if contradicted:
        findings.fault(
            f"{item.label}", found=f"voxels of {listed(contradicted)}, which info says are labelled but not present",
            expected="no voxel of them", fix="Correct the second row of info, or the labels.",
        )  # fmt: skip
    if item.info.not_present.all():
        findings.fault(
            f"{item.cube.name}: {INFO}", found="all classes not present", expected="at least one class that may be",
            fix="Correct the second row.",
        )  # fmt: skip


def _check_channels(contents: Sequence[_CubeContent], settings: ConversionSettings, findings: Findings) -> None:
    """Report a number of channels that differs between cubes, or from the given names."""
    numbers = {item.n_channels for item in contents}
    wanted = {len(settings.channel_names)} if settings.channel_names else set()
    if len(numbers | wanted) > 1:
        each = listed((f"{item.n_channels} in {item.cube.name}" for item in contents), 20)
        expected = f"{min(wanted)}, as named" if wanted else "the same number in every cube"
        findings.fault("channels", found=each, expected=expected, fix="Correct --channel-names or --axes.")


def _write_cube(item: _CubeContent, output: Path, settings: ConversionSettings, *, ignore: int) -> dict[str, float]:
    """Write images and labels of a cube; return case -> share of its voxels with a label, 0 to 1."""
    image = to_czyx(read_array(item.image), settings.axes)
    labels = np.full(image.shape[1:], ignore, dtype=np.uint16)
    if item.counts:
        drawn = to_czyx(read_array(item.label), settings.axes.replace("c", ""))[0]
        inner = tuple(slice(low, low + size) for low, size in zip(item.margin, drawn.shape, strict=True))
        labels[inner] = np.where(_counts(drawn, item.info), drawn, ignore)
    names = item.cases(settings)
    geometry = Geometry(spacing=settings.spacing_of_files)
    parts = [slice(z, z + 1) for z in range(len(names))] if settings.slices else [slice(None)]
    for name, part in zip(names, parts, strict=True):
        for channel, values in enumerate(image[:, part]):
            path = output / "imagesTr" / f"{name}_{channel:04d}{settings.ending}"
            write_volume(path, np.ascontiguousarray(values), geometry)
        write_labels(output / "labelsTr" / f"{name}{settings.ending}", labels[part], geometry)
    return {name: float(np.mean(labels[part] != ignore)) for name, part in zip(names, parts, strict=True)}


def _counts(drawn: NDArray[Any], info: LazyInfo | None) -> BoolArray:
    """(*S) bool: voxels of ``drawn`` (*S) with a label, except of a class that is neither labelled nor present."""
    counts: BoolArray = drawn >= 0
    if info is not None:
        void = np.flatnonzero(~info.labelled & info.not_present)
        counts &= ~np.isin(drawn, void)
    return counts


def _dataset_json(
    contents: Sequence[_CubeContent], names: Sequence[str], settings: ConversionSettings, *, is_dense: bool
) -> dict[str, Any]:
    """Return the content of dataset.json."""
    labels = {name: value for value, name in enumerate(names)} | ({} if is_dense else {"ignore": len(names)})
    n_channels = contents[0].n_channels
    channels = settings.channel_names or (
        ("EM",) if n_channels == 1 else tuple(f"channel_{index}" for index in range(n_channels))
    )
    entries = [_case_entry(item, names, settings, grouped=len(contents) > 1) for item in contents]
    cases = {
        case: entry for item, entry in zip(contents, entries, strict=True) if entry for case in item.cases(settings)
    }
    content: dict[str, Any] = {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": labels,
        "numTraining": sum(len(item.cases(settings)) for item in contents),
        "file_ending": settings.ending,
    }
    if any("annotated" in entry for entry in cases.values()):
        content["lazy_semantics"] = "seed"
    return content | ({"cases": cases} if cases else {})


def _case_entry(
    item: _CubeContent, names: Sequence[str], settings: ConversionSettings, *, grouped: bool
) -> dict[str, Any]:
    """Return the entry of each case of a cube in dataset.json; empty if nothing is stated about it.

    ``grouped`` slices of a cube stay in one fold. They share its priority.
    """
    entry: dict[str, Any] = {}
    if item.info is not None:
        labelled, absent = item.info.labelled, item.info.not_present
        if not labelled.all():  # a class that is not present has no annotated voxel
            entry["annotated"] = [names[index] for index in np.flatnonzero(labelled & ~absent).tolist()]
        if absent.any():
            entry["absent"] = [names[index] for index in np.flatnonzero(absent).tolist()]
    if item.cube.priority is not None:
        entry["priority"] = item.cube.priority / len(item.cases(settings))
    if settings.slices and grouped:
        entry["group"] = item.cube.name
    return entry
