"""Combination of predictions: the weighted mean of saved probabilities, and the label maps that follow from it.

One head is in memory at a time: about 13 bytes per voxel of a case, whatever the number of heads and of folders.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.core.arrays import BoolArray, Float32Array, LabelMap
from autoseg.core.errors import EvaluationError
from autoseg.core.findings import counted, listed
from autoseg.core.geometry import Geometry
from autoseg.core.parallel import map_ordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.dataset.folder_files import has_ending, stem_of, visible
from autoseg.dataset.labels import Labels, background_value
from autoseg.evaluation.grids import grid_difference
from autoseg.evaluation.matching import label_files, load_dataset
from autoseg.evaluation.prediction_folder import FolderReport, check_input, output_path, prepare_output, report_of
from autoseg.io.images import read_header, read_labels, write_labels, write_probabilities
from autoseg.io.probabilities import PROBABILITIES_ENDING, ProbabilityFile, read_probability_shape

SAVE = "Predict with autoseg_predict --save-probabilities."
_BUILT_IN = (None, "semantic", "regions")


@dataclass(frozen=True, slots=True)
class Member:
    """A folder of predictions with saved probabilities."""

    folder: Path
    dataset: Dataset
    probabilities: Mapping[str, Path]
    """Case -> file, sorted by case."""
    label_maps: Mapping[str, Path]
    """Case -> label map."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the classes or regions, in the order of the file."""
        return tuple(head.name for head in self.dataset.labels.heads)


@dataclass(frozen=True, slots=True)
class _Job:
    """One case, as it is sent to a worker process."""

    case: str
    files: tuple[Path, ...]
    heads: tuple[tuple[int, ...], ...]
    """Of each file: index of each head of the first member."""
    weights: tuple[float, ...]
    labels: Labels
    label_map: Path
    """That of the first member, with the geometry."""
    output: Path
    saves_probabilities: bool

    def __repr__(self) -> str:
        return self.case


def ensemble_folders(
    folders: Sequence[Path],
    output_folder: Path,
    *,
    weights: Sequence[float] | None = None,
    save_probabilities: bool = False,
    overwrite: bool = False,
    workers: int = 1,
    progress: Progress = silent,
) -> FolderReport:
    """Write the label maps of the mean probabilities of several folders of predictions of the same images.

    All folders are checked before anything is written. Heads are matched by the names of classes or regions in the
    dataset.json of each folder; file values, geometry, ending, dataset.json and plans.json are those of the first.

    Parameters
    ----------
    folders
        Two or more folders with ``<case>.npz``, a label map of every case, and dataset.json.
    output_folder
        Made if it does not exist.
    weights
        One number above 0 per folder, which are scaled to the sum 1; None: all equal.
    save_probabilities
        Also write ``<case>.npz`` with the mean.
    overwrite
        Write label maps that exist again, instead of refusing.
    workers
        Number of processes, each with one case.

    Returns
    -------
    report
        Number of voxels of each case that differ from the label map of the first folder. A case whose file turns out to
        be damaged is in ``failed``.

    Raises
    ------
    EvaluationError
        If there are fewer than two folders; if they differ in classes, cases or shapes, which are named; if their label
        maps do not follow from probabilities of heads (a task of your own, regression).
    ConfigError
        If the output folder cannot be used; see :func:`autoseg.evaluation.prediction_folder.prepare_output`.

    Notes
    -----
    Source: nnU-Net ``ensembling/ensemble.py``: mean of float32 probabilities, then the rule of the labels. Differs: all
    files are checked first, plans.json is copied, and memory does not grow with the number of classes.
    """
    members = [_read_member(folder) for folder in folders]
    shares = _shares(weights, members)
    _check_members(members)
    first = members[0]
    heads = tuple(tuple(map(member.heads.index, first.heads)) for member in members)
    jobs = [
        _Job(
            case, tuple(member.probabilities[case] for member in members), heads, shares, first.dataset.labels,
            first.label_maps[case], output_path(output_folder, case, first.label_maps[case], first.dataset),
            save_probabilities,
        )
        for case in first.probabilities
    ]  # fmt: skip
    faults = [fault for case in first.probabilities for fault in _grid_faults(case, members)]
    if faults:
        raise EvaluationError("\n".join(faults))
    outputs = [job.output for job in jobs]
    prepare_output(output_folder, [member.folder for member in members], first.dataset, outputs, overwrite=overwrite)
    names = [job.case for job in jobs]
    return report_of(names, map_ordered(_combine, jobs, names, workers=workers, progress=progress))


def combine(files: Sequence[Path], heads: Sequence[Sequence[int]], weights: Sequence[float]) -> Iterator[Float32Array]:
    """Yield the weighted mean (z, y, x) float32 of each head over files of saved probabilities.

    Parameters
    ----------
    files
        One per member, all of one shape (z, y, x).
    heads
        Of each file: the index there of each head to yield.
    weights
        One per file; their sum is 1.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(ProbabilityFile(path)) for path in files]
        for indices in zip(*heads, strict=True):
            mean: Float32Array = np.zeros(opened[0].shape[1:], dtype=np.float32)
            for file, index, weight in zip(opened, indices, weights, strict=True):
                mean += np.float32(weight) * file.head(index)
            yield mean


class HeadDecider:
    """The label map that follows from probabilities which arrive head by head, as :meth:`Labels.decode` decides.

    Of classes the most probable one is taken, the first one on ties. Regions above 0.5 are painted; of them it keeps
    one bit per region and voxel.
    """

    def __init__(self, labels: Labels, shape: tuple[int, ...]) -> None:
        self._labels = labels
        self._n_seen = 0
        dtype = np.uint8 if max(labels.file_values()) < 256 else np.uint16
        self._values = np.full(shape, background_value(labels), dtype=dtype)
        self._best: Float32Array = np.full(0 if labels.has_regions else shape, -1, dtype=np.float32)
        n_bytes = -(-labels.n_heads // 8) if labels.has_regions else 0
        self._bits = np.zeros((n_bytes, *shape), dtype=np.uint8)

    def add(self, values: Float32Array) -> None:
        """Take the probabilities (z, y, x) of the next head."""
        index, self._n_seen = self._n_seen, self._n_seen + 1
        if self._labels.has_regions:
            self._bits[index // 8] |= (values > 0.5).astype(np.uint8) << np.uint8(index % 8)
        else:
            np.copyto(self._values, self._labels.class_values[index], where=values > self._best)
            np.maximum(self._best, values, out=self._best)

    def label_map(self) -> LabelMap:
        """Return the file values (z, y, x), after all heads were added."""
        if self._labels.has_regions:
            for plane in range(len(self._values)):
                self._values[plane] = self._labels.decode(np.where(self._predicted(plane), 1.0, -1.0))
        return self._values

    def _predicted(self, plane: int) -> BoolArray:
        """Return (H, y, x) bool: the regions that are predicted in a plane."""
        bits = np.unpackbits(self._bits[:, plane], axis=0, bitorder="little")
        n_bytes, *shape = self._bits[:, plane].shape
        ordered = bits.reshape(n_bytes * 8, *shape) if n_bytes else bits
        return ordered[: self._labels.n_heads].astype(bool)


def _combine(job: _Job) -> int:
    """Write one case; return the number of voxels that differ from the label map of the first member."""
    before, geometry = read_labels(job.label_map)
    decider = HeadDecider(job.labels, before.shape)

    def decided() -> Iterator[Float32Array]:
        for values in combine(job.files, job.heads, job.weights):
            decider.add(values)
            yield values

    if job.saves_probabilities:
        write_probabilities(job.output.parent / job.case, decided(), job.labels.n_heads)
    else:
        deque(decided(), maxlen=0)
    label_map = decider.label_map()
    write_labels(job.output, label_map, geometry)
    return int(np.count_nonzero(label_map != before))


def decides_by_heads(labels: Labels) -> bool:
    """Whether label maps follow from the probabilities of heads alone: not for regression, instances, a user's task."""
    return not labels.targets and labels.instances is None and labels.task in _BUILT_IN


def _read_member(folder: Path) -> Member:
    """Return a folder of predictions; raise ``EvaluationError`` if a file is missing in it."""
    check_input(folder)
    if not (folder / DATASET_JSON).is_file():
        raise EvaluationError(
            f"{folder}: found no {DATASET_JSON}, expected that of the model, which gives the meaning of its heads. "
            "Copy it there, or predict with autoseg_predict, which writes it."
        )
    dataset = load_dataset(folder)
    if not decides_by_heads(dataset.labels):
        raise EvaluationError(
            f"{folder}: found the task {dataset.json['task']!r}, expected classes or regions. Give all models to one "
            "autoseg_predict instead."
        )
    files = [path for path in visible(folder) if has_ending(path.name, PROBABILITIES_ENDING) and path.is_file()]
    if not files:
        raise EvaluationError(f"{folder}: found no <case>{PROBABILITIES_ENDING}, expected one per case. {SAVE}")
    label_maps = label_files(folder, dataset.file_ending)
    probabilities = {stem_of(path, PROBABILITIES_ENDING): path for path in files}
    for found, others, missing in (
        (probabilities, label_maps, "label map"), (label_maps, probabilities, PROBABILITIES_ENDING),
    ):  # fmt: skip
        alone = [case for case in found if case not in others]
        if alone:
            raise EvaluationError(
                f"{folder}: found no {missing} of {listed(alone, 20)}, expected a label map and a "
                f"{PROBABILITIES_ENDING} of every case. {SAVE}"
            )
    return Member(folder, dataset, dict(sorted(probabilities.items())), label_maps)


def _shares(weights: Sequence[float] | None, members: Sequence[Member]) -> tuple[float, ...]:
    """Return the weights with the sum 1; raise ``EvaluationError`` unless there is one above 0 for every member."""
    given = [1.0] * len(members) if weights is None else list(weights)
    if len(given) != len(members) or not all(0 < weight < float("inf") for weight in given):
        raise EvaluationError(
            f"weights: found {listed(given, 20)}, expected one number above 0 for each of the "
            f"{counted(len(members), 'folder')}. Correct --weights."
        )
    return tuple(weight / sum(given) for weight in given)


def _check_members(members: Sequence[Member]) -> None:
    """Raise ``EvaluationError`` unless there are several different folders with the same heads and cases."""
    if len({member.folder.resolve() for member in members}) < max(2, len(members)):
        raise EvaluationError(
            f"folders: found {listed([member.folder for member in members], 20)}, expected two or more different "
            "folders. Name each once."
        )
    first, *others = members
    for other in others:
        if {*other.heads} != {*first.heads} or other.dataset.labels.has_regions != first.dataset.labels.has_regions:
            raise EvaluationError(
                f"{other.folder}: found the heads {listed(other.heads, 20)}, expected those of {first.folder}, "
                f"{listed(first.heads, 20)}. Only models of the same classes can be combined."
            )
        lines = [
            f"{member.folder}: found no {listed(missing, 20)}, expected every case of {wanted.folder}. Predict the "
            "missing cases, or remove the others."
            for member, wanted in ((other, first), (first, other))
            if (missing := [case for case in wanted.probabilities if case not in member.probabilities])
        ]
        if lines:
            raise EvaluationError("\n".join(lines))


def _grid_faults(case: str, members: Sequence[Member]) -> Iterator[str]:
    """Yield a message for every member whose probabilities of a case lie on another grid than the first label map."""
    (_, *expected), geometry = read_header(members[0].label_maps[case])
    for member in members:
        path = member.probabilities[case]
        n_heads, *shape = read_probability_shape(path)
        if shape != expected or n_heads != len(member.heads):
            yield (
                f"{path}: found the shape {(n_heads, *shape)}, expected {(len(member.heads), *expected)}: the heads of "
                f"{DATASET_JSON}, then the voxels of {members[0].label_maps[case]}. Predict the same images with all "
                "models."
            )
        elif difference := _difference(member.label_maps[case], geometry):
            yield (
                f"{member.label_maps[case]}: {difference} as in {members[0].label_maps[case]}. Predict the same images "
                "with all models."
            )


def _difference(label_map: Path, geometry: Geometry) -> str | None:
    return grid_difference(read_header(label_map)[1], geometry)
