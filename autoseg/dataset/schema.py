"""The keys of a dataset.json and their valid values, as pydantic models of the file.

Source: nnU-Net v2 ``documentation/dataset_format.md``. A new key is a field here and a row of advice in
``schema_faults.py``; rules between keys are in ``label_section.py``, ``case_section.py`` and ``protocol_section.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from autoseg.dataset.file_values import MAX_VALUE, is_number, parse_value
from autoseg.dataset.labels import LazySemantics

BACKGROUND = "background"
IGNORE = "ignore"
UNLABELLED = "unlabelled"
ORDER = "regions_class_order"
MASK_FOLDER = "valid_mask_folder"
TARGETS = "targets"
REGRESSION = "regression"
"""Name of the task whose label files hold numbers instead of classes."""
INSTANCES = "instances"
"""Name of the task whose label files hold numbers of objects."""
AFFINITIES = "affinities"
PER_CLASS = "instances_per_class"
PROTOCOL = "annotation_protocol"
LARGEST = sys.float_info.max

ALL_CLASSES = "\0"
"""Key for one distance for all classes; no class can have this name."""
FAULTY: Final = object()
"""Placeholder for a faulty part in the content of a file."""


def _single_error(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(value)
    except ValidationError:
        raise PydanticCustomError("form", "of another form") from None


def _stated(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    if value is None:
        raise PydanticCustomError("null", "null")
    return None if value is FAULTY else handler(value)


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _by_class(value: object) -> object:
    return value if isinstance(value, Mapping) else {ALL_CLASSES: value}


def _file_value(value: object) -> int | None:
    number = parse_value(value)
    if value is not None and number is None:
        raise PydanticCustomError("file_value", "no file value")
    return number


Single = WrapValidator(_single_error)
"""Validator that reports one error per value, instead of one for each form and item."""
Stated = WrapValidator(_stated)
"""Validator for which null is a fault: None means that the key is missing or had a fault."""

Item = TypeVar("Item")
Named: TypeAlias = dict[str, Annotated[Item | None, Stated]]
"""An object whose keys are names; an entry is None after a fault."""
Text = Annotated[str, Field(pattern=r"\S")]
Names = Annotated[list[str], Single]
FileValue = Annotated[int, Field(ge=0, le=MAX_VALUE)]
Values = Annotated[
    list[FileValue],
    Field(min_length=1),
    BeforeValidator(_listed),
    AfterValidator(lambda values: tuple(sorted(set(values)))),
]
"""The file values of a class (one) or region (several); ascending."""
Span = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]
"""First voxel along an axis and one past the last."""
Distance = Annotated[Annotated[float, Field(gt=0, le=LARGEST)] | Literal["auto"], Single]
"""Distance in mm, or "auto": estimated from the data."""


class Section(BaseModel):
    """An object of the file with known keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _without_faulty(cls, content: object) -> object:
        if not isinstance(content, Mapping):
            return content
        return {name: value for name, value in content.items() if value is not FAULTY}


class LabelSection(Section):
    """The key ``labels``: background, ignore, and any other name with the values of its class or region."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Values]

    background: FileValue = 0
    ignore: Annotated[int | None, Stated] = None

    @model_validator(mode="before")
    @classmethod
    def _names_first(cls, content: object) -> object:
        pairs = content.items() if isinstance(content, Mapping) else ()
        if pairs and all(is_number(name) and isinstance(value, str) for name, value in pairs):
            raise PydanticCustomError("inverted", "values as keys")
        return content

    @property
    def foreground(self) -> dict[str, tuple[int, ...]]:
        """Name -> file values, ascending; names in the order of the file."""
        return dict(self.__pydantic_extra__)  # type: ignore[arg-type]  # the validator makes tuples


class CaseEntry(Section):
    """The keys ``cases.<case>``."""

    annotated: Annotated[Names | None, Stated] = None
    absent: Names = []
    priority: Annotated[float, Field(ge=0, le=LARGEST)] = 1.0
    group: Annotated[Text | int | None, Stated, Single] = None
    experts: Annotated[Named[Text], Field(min_length=1)] = {}
    """Name of an expert -> path of the mask that the expert made."""


class BoxEntry(Section):
    """The keys ``boxes.<case>``: a part of a volume, by locations that start at the folder of the dataset.json."""

    image: Annotated[Annotated[list[Text], Field(min_length=1)], BeforeValidator(_listed), Single] = []
    """Locations of the volume in channel order; empty if the key is missing or had a fault, as is ``label``."""
    box: Annotated[Annotated[list[Span], Field(min_length=3, max_length=3)] | None, Stated, Single] = None
    """[[z0, z1], [y0, y1], [x0, x1]] in voxels; None: all of the volume."""
    label: Text = ""
    valid_mask: Annotated[Text | None, Stated] = None


class ExpertFusion(Section):
    """The key ``expert_fusion``."""

    method: Literal["staple", "majority", "sets"] = "staple"
    undecided: Text = IGNORE
    """``ignore``, or a class."""
    soft: bool = False
    """Whether a voxel of which experts are less sure counts less in training."""


class WeightedLabel(Section):
    """The keys ``label_weights.<value>``."""

    label: Annotated[list[Text], Field(min_length=1), BeforeValidator(_listed)]
    """One class or region, or several."""
    weight: Annotated[float, Field(ge=0, le=1)]


class Gap(Section):
    """The key ``annotation_protocol.background_encloses`` as an object: the widest gap that counts as closed, in mm."""

    gap_mm: Annotated[float, Field(ge=0)]


class ProtocolSection(Section):
    """The key ``annotation_protocol``."""

    classes_complete_in: Annotated[Literal["slice", "case"] | None, Stated] = None
    reach_mm: Annotated[Named[Distance], Field(min_length=1), BeforeValidator(_by_class)] = {}
    """Class name -> distance, or ``ALL_CLASSES`` alone."""
    instances_touched: bool = False
    background_encloses: Annotated[bool | Gap, Single] = False
    slice_axis: Annotated[Literal["z", "y", "x"] | None, Stated] = None


class ListedCase(Section):
    """The keys ``dataset.<case>``: the files of one case."""

    model_config = ConfigDict(extra="ignore")

    images: Annotated[list[str], Field(min_length=1)]
    label: str | None = None


class DatasetSchema(Section):
    """A dataset.json without its faulty parts. Unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore")

    channel_names: Annotated[Named[Text], Field(min_length=1)] = Field(
        {}, validation_alias=AliasChoices("channel_names", "modality")
    )
    file_ending: Annotated[str, Field(pattern=r"^\..")] = ""
    labels: LabelSection = LabelSection()
    regions_class_order: Annotated[list[int] | None, Single] = None
    label_sets: Named[Annotated[list[str], Field(min_length=1), Single]] = {}
    label_weights: Named[Annotated[WeightedLabel, Single]] = {}
    unlabelled: Annotated[int | None, BeforeValidator(_file_value)] = None
    cases: Named[CaseEntry] = {}
    expert_fusion: ExpertFusion = ExpertFusion()
    lazy_semantics: LazySemantics = "marginal"
    annotation_protocol: ProtocolSection = ProtocolSection()
    valid_mask_folder: Text | None = None
    task: Annotated[Text | None, Stated] = None
    targets: Annotated[Annotated[list[Text], Field(min_length=1)], Single] = []
    instances_per_class: Annotated[Annotated[int, Field(ge=2, le=10**8)] | None, Stated] = None
    affinities: Annotated[
        Annotated[list[Annotated[list[int], Field(min_length=3, max_length=3)]], Field(min_length=1, max_length=6)],
        Single,
    ] = []
    dataset: Annotated[Named[Annotated[ListedCase, Single]], Field(min_length=1)] = {}
    boxes: Annotated[Named[BoxEntry], Field(min_length=1)] = {}


@dataclass(frozen=True)
class DatasetFile:
    """Content of a dataset.json, and its valid parts."""

    content: Mapping[str, Any]
    """Content as read."""
    schema: DatasetSchema
    """Valid parts: faulty ones have the default of their key, or are None in an object whose keys are names."""
    faulty: frozenset[str] = frozenset()
    """Dotted keys of the faulty parts."""


REQUIRED = ("channel_names", "file_ending", "labels")
REQUIRED_OF_REGRESSION = ("channel_names", "file_ending", TARGETS)
NNUNET_KEYS = frozenset({*REQUIRED, "modality", ORDER, "numTraining", "overwrite_image_reader_writer", "dataset"})
OWN_KEYS = frozenset(DatasetSchema.model_fields) - NNUNET_KEYS


def has_regions(labels: Mapping[str, object]) -> bool:
    """Whether ``labels`` declares a region: a list of more than one integer (a one-element list does not)."""
    foreground = (value for name, value in labels.items() if name.strip().casefold() not in (BACKGROUND, IGNORE))
    return any(isinstance(value, (list, tuple)) and len(value) > 1 for value in foreground)
