"""A data set as described by its dataset.json and folders: validated once, then immutable."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from autoseg.core.errors import DatasetError, Fault
from autoseg.core.findings import Findings, did_you_mean, listed
from autoseg.dataset.box_cases import find_box_cases, grouped, with_volumes
from autoseg.dataset.case_files import TrainingFiles, find_experts, find_masks, find_training_cases
from autoseg.dataset.case_section import add_statements, entries_by_case
from autoseg.dataset.dataset_json import check_number_of_cases, read_channels, read_dataset_json
from autoseg.dataset.labels import Labels
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.dataset.protocol_section import read_protocol
from autoseg.dataset.schema import CaseEntry, DatasetFile, DatasetSchema, ExpertFusion
from autoseg.dataset.schema_faults import read_schema
from autoseg.dataset.task_section import read_task_labels
from autoseg.dataset.volume_part import VolumePart

DATASET_JSON = "dataset.json"
IMAGES = "imagesTr"
ENDING_OF_MAPS = ".nii.gz"
"""``file_ending`` of a data set that has none, because all of its cases are parts of volumes."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """The files of one case, with its group and priority from dataset.json."""

    name: str
    images: tuple[Path, ...]
    """Channel files in channel order (one file may hold several channels); of a volume its locations."""
    label: Path | None = None
    group: str | None = None
    """Name of a group (patient, volume), whose cases stay in one fold; None for no group."""
    priority: float = 1.0
    """Relative sampling weight, at least 0."""
    valid_mask: Path | None = None
    """Mask on the grid of the label file: voxels with 0 are unannotated, whatever the label file holds there."""
    experts: tuple[tuple[str, Path], ...] = ()
    """Experts and their masks, sorted by name, of which the label file is still to be fused; then ``label`` is None."""
    volume: VolumePart | None = None
    """The part of a volume that is the case; then images, label and valid mask are locations with its box, which
    ``autoseg.io`` reads as it reads files. None if they are ordinary files."""

    def __repr__(self) -> str:
        return f"case {self.name!r}"

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case."""
        return (*self.images, *(path for path in (self.label, self.valid_mask) if path is not None))


@dataclass(frozen=True)
class Dataset:
    """A data set: channels, labels and the files of its cases."""

    name: str
    folder: Path
    channels: tuple[str, ...]
    """Names in channel order (numeric order of the keys of ``channel_names``)."""
    labels: Labels
    file_ending: str
    cases: tuple[CaseFiles, ...]
    """Training cases, sorted by name."""
    json: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """dataset.json as read."""
    protocol: AnnotationProtocol = field(default=AnnotationProtocol(), repr=False)
    """Promises of the annotators about how they worked."""
    warnings: tuple[str, ...] = field(default=(), repr=False)
    """Warnings about entries that are valid but probably not intended; :meth:`load` logs them."""
    expert_fusion: ExpertFusion = field(default=ExpertFusion(), repr=False)
    """How masks of experts are fused."""
    json_name: str = field(default=DATASET_JSON, repr=False)
    """Name of the JSON file in ``folder`` that describes the data set."""

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Read a data set from its folder, or from a dataset json of any name.

        Only file names are checked; ``planning.check_dataset`` reads the files. The name of the data set is that of its
        folder; a ``dataset_x.json`` adds ``_x``, and reads ``labelsTr_x`` if that exists.

        Raises
        ------
        DatasetError
            With every fault of the dataset.json and of the file names.
        """
        dataset, faults = cls.examine(path)
        if faults:
            raise DatasetError(faults)
        for warning in dataset.warnings:
            logger.warning(warning)
        return dataset

    @classmethod
    def examine(cls, path: str | Path) -> tuple[Dataset, tuple[Fault, ...]]:
        """Read a data set as :meth:`load` does; return it without its faulty parts, and every fault.

        After a fault in ``labels`` the labels have no classes, after one in ``channel_names`` there are no channels;
        cases are those with an image and a label file. This suffices to check the files all the same.

        Raises
        ------
        DatasetError
            If there is no dataset.json, or it is not JSON.
        """
        json_path = _json_path(Path(path).expanduser())
        folder = json_path.parent.absolute()
        findings = Findings(json_path.name)
        content = read_dataset_json(json_path, findings)
        file = read_schema(content, findings)
        schema, channels, labels = file.schema, read_channels(file, findings), read_task_labels(file, findings)
        files, masks = _find_cases(folder, file, len(channels), findings)
        if labels is not None:
            labels = add_statements(labels, schema, files.keys() if files else None, findings)
            labels = replace(labels, has_boxes=any(of_case.volume is not None for of_case in files.values()))
        entries = entries_by_case(schema)
        groups = grouped(files, {name: _stated_group(entry) for name, entry in entries.items()}, findings)
        dataset = cls(
            name=_dataset_name(folder, json_path),
            folder=folder,
            channels=channels,
            labels=labels or Labels((), (), ()),
            file_ending=_file_ending(schema),
            cases=tuple(
                _case_files(name, of_case, masks.get(name), entries.get(name), groups[name])
                for name, of_case in files.items()
            ),
            json=content,
            protocol=read_protocol(schema.annotation_protocol, labels, findings),
            warnings=tuple(findings.warnings),
            expert_fusion=schema.expert_fusion,
            json_name=json_path.name,
        )
        return dataset, tuple(findings.faults)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, name: str, folder: Path | None) -> Dataset:
        """Return a data set without cases, from the content of a dataset.json, as model folders keep it.

        Raises ``DatasetError`` with every fault.
        """
        findings = Findings(f"{DATASET_JSON} of {name}")
        without_files = {key: value for key, value in content.items() if key != "dataset"}
        file = read_schema(without_files, findings)
        channels, labels = read_channels(file, findings), read_task_labels(file, findings)
        if labels is not None:
            labels = add_statements(labels, file.schema, None, findings)
        protocol = read_protocol(file.schema.annotation_protocol, labels, findings)
        if labels is None or findings.faults:
            raise DatasetError(findings.faults)
        return cls(
            name=name,
            folder=folder if folder is not None else Path(),
            channels=channels,
            labels=labels,
            file_ending=_file_ending(file.schema),
            cases=(),
            json=dict(content),
            protocol=protocol,
        )

    @property
    def case_names(self) -> tuple[str, ...]:
        """Names of the training cases, sorted."""
        return tuple(case.name for case in self.cases)

    @cached_property
    def _by_name(self) -> dict[str, CaseFiles]:
        return {case.name: case for case in self.cases}

    def case(self, name: str) -> CaseFiles:
        """Return the training case ``name``; raise ``DatasetError`` if there is none."""
        case = self._by_name.get(name)
        if case is not None:
            return case
        fix = "Check the name." + did_you_mean(name, self.case_names)
        raise DatasetError([Fault(f"data set {self.name}", f"no case {name!r}", f"{listed(self.case_names)}", fix)])


def _json_path(path: Path) -> Path:
    """Return the dataset.json for ``path``, a folder or the file itself; raise ``DatasetError`` if there is none."""
    if path.is_file():
        return path
    if not path.is_dir():
        fix = "Check the path, and that the disk is mounted."
        raise DatasetError([Fault(str(path), "no such file or folder", "a folder with a dataset.json", fix)])
    if (path / DATASET_JSON).is_file():
        return path / DATASET_JSON
    others = sorted(item.name for item in path.glob("*.json"))
    fix = f"Name the file itself, say {path / others[0]}." if others else "Copy one of dataset_templates/ there."
    raise DatasetError([Fault(str(path), f"no {DATASET_JSON}", f"a folder with a {DATASET_JSON}", fix)])


def _dataset_name(folder: Path, json_path: Path) -> str:
    variant = json_path.stem.removeprefix("dataset").lstrip("_")
    return f"{folder.name}_{variant}" if variant else folder.name


def _find_cases(
    folder: Path, file: DatasetFile, n_channels: int, findings: Findings
) -> tuple[dict[str, TrainingFiles], dict[str, Path]]:
    """Return case -> files, sorted by name, and case -> valid mask, in a folder and by its dataset.json."""
    schema, content = file.schema, file.content
    has_files = "dataset" in content or "boxes" not in content or (folder / IMAGES).is_dir()
    files: dict[str, TrainingFiles] = {}
    masks: dict[str, Path] = {}
    if has_files and (schema.file_ending or "dataset" in content):
        listed_cases = schema.dataset if "dataset" in content else None
        experts = find_experts(folder, schema, findings)
        some = n_channels or 10_000  # after a fault any number of channel files will do
        files = find_training_cases(folder, listed_cases, schema.file_ending, some, findings, experts)
        if schema.valid_mask_folder is not None:
            masks = find_masks(folder, schema.valid_mask_folder, files, schema.file_ending, findings)
    elif has_files and "boxes" in content and "file_ending" not in content:
        fix = f"Add it for the files in {IMAGES}, or move that folder away."
        findings.fault("file_ending", found="no such key", expected=f"the ending of the files in {IMAGES}", fix=fix)
    boxes = find_box_cases(folder, file, files, findings)
    files = dict(sorted(with_volumes({**files, **boxes}).items()))
    if files or has_files:
        check_number_of_cases(content, len(files), findings)
    masks |= {name: part.mask_path for name, part in _parts(boxes) if part.mask_path is not None}
    return files, masks


def _file_ending(schema: DatasetSchema) -> str:
    return schema.file_ending or (ENDING_OF_MAPS if schema.boxes else "")


def _parts(files: Mapping[str, TrainingFiles]) -> Iterator[tuple[str, VolumePart]]:
    return ((name, of_case.volume) for name, of_case in files.items() if of_case.volume is not None)


def _stated_group(entry: CaseEntry) -> str | None:
    return None if entry.group is None else str(entry.group)


def _case_files(
    name: str, files: TrainingFiles, mask: Path | None, entry: CaseEntry | None, group: str | None
) -> CaseFiles:
    volume = files.volume
    if volume is not None and mask is not None and volume.valid_mask is None:
        volume = replace(volume, valid_mask=str(mask))
    return CaseFiles(
        name=name,
        images=files.images,
        label=files.label,
        group=group,
        priority=(entry or CaseEntry()).priority,
        valid_mask=mask,
        experts=files.experts,
        volume=volume,
    )
