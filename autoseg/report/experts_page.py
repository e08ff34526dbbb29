"""Page about fused masks of experts: their agreement with each other and with the fusion, and images in pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from autoseg.core.errors import ConfigError
from autoseg.core.findings import counted, listed
from autoseg.core.means import mean_known
from autoseg.report.case_parts import choose
from autoseg.report.charts import boxes
from autoseg.report.origin import Origin, command_parts
from autoseg.report.page import Cell, Section, facts, heading, heat, note, page, picture, side_by_side, table, warnings

EXPERTS_FILE, ROWS_FILE, PICTURES = "experts.json", "experts.csv", "pictures"
SCORES = ("mean_dice", "dice", "sensitivity", "specificity", "average_precision")
"""Beginnings of the names of scores in the table of experts."""


class FusionSettings(BaseModel):
    """How masks were fused."""

    model_config = ConfigDict(frozen=True)

    masks: str = ""
    method: str = ""
    undecided: str = ""
    command: str | None = None
    versions: dict[str, str] = {}


class FusedImage(BaseModel):
    """Agreement on one image."""

    model_config = ConfigDict(frozen=True)

    case: str = ""
    """Name of its picture; "" if it was not recorded."""
    experts: tuple[str, ...]
    decided: float
    unknown: float
    is_settled: bool = True
    mean_dice: tuple[float | None, ...]
    """Of each expert, with the fused labels."""


class AgreementMatrix(BaseModel):
    """Dice of every two experts."""

    model_config = ConfigDict(frozen=True)

    experts: tuple[str, ...]
    mean_dice: tuple[tuple[float | None, ...], ...]


class ExpertReport(BaseModel):
    """What a page shows of experts.json."""

    model_config = ConfigDict(frozen=True)

    settings: FusionSettings = FusionSettings()
    classes: tuple[str, ...]
    experts: tuple[dict[str, str | int | float | None], ...]
    """Means of each expert: name of a column -> value."""
    agreement: AgreementMatrix
    images: dict[str, FusedImage]


def experts_page(folder: Path, n_each: int) -> tuple[str, list[str]]:
    """Return the page of the output of autoseg_fuse_experts, and remarks on what is missing.

    ``n_each``: number of images with least, middling and best agreement in pictures. Raises ``ConfigError`` if the
    tables cannot be read.
    """
    report = _read(folder / EXPERTS_FILE)
    ranked = sorted(report.images, key=lambda name: (_mean(report.images[name]), name))
    texts = [(("", name), _image_text(report.images[name])) for name in ranked]
    shown = choose(texts, n_each, ("least agreement", "median agreement", "best agreement"))
    drawn, missing = [], []
    for case in shown:
        path = folder / PICTURES / f"{report.images[case.key[1]].case or case.key[1]}.png"
        if path.is_file():
            text = f"experts who named foreground, and fused labels, of {case.key[1]}"
            content = heading(case.title, case.anchor) + picture(path.read_bytes(), text)
            drawn.append(f'<div class="case">{content}</div>')
        else:
            missing.append(path.name)
    remarks = [f"no pictures of {listed(missing)}: they are not in {folder / PICTURES}"] if missing else []
    sections = [
        Section("Overview", (_overview(report), warnings(_warnings(report)))),
        Section("Experts", (_experts_table(report), _matrix(report))),
        Section("Agreement on each image", (_boxes(report), *_rows(folder / ROWS_FILE, report.classes))),
        Section("Images, from least to best agreement", (warnings(remarks), *drawn)),
        Section("Commands and versions", command_parts([_origin(report.settings)])),
    ]
    title = f"Experts fused in {folder.name}"
    return page(title, f"Folder {folder.absolute()}", sections), remarks


def _read(path: Path) -> ExpertReport:
    try:
        return ExpertReport.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = f"{error.error_count()} faults" if isinstance(error, ValidationError) else str(error)
        raise ConfigError(
            f"{path}: cannot be read ({reason}), expected what autoseg_fuse_experts wrote. Fuse the masks again."
        ) from error


def _mean(image: FusedImage) -> float:
    return mean_known(image.mean_dice) or 0.0


def _image_text(image: FusedImage) -> str:
    return f"mean Dice of {counted(len(image.experts), 'expert')} with the fusion {_mean(image):.3f}"


def _overview(report: ExpertReport) -> str:
    images = report.images.values()
    return facts(
        {
            "images": len(report.images),
            "experts": listed(report.agreement.experts),
            "classes": listed(report.classes),
            "method": report.settings.method,
            "undecided voxels become": report.settings.undecided,
            "unknown voxels": f"{100 * sum(image.unknown for image in images) / max(len(images), 1):.3g} %, mean share",
        }
    )


def _warnings(report: ExpertReport) -> list[str]:
    unsettled = [name for name, image in report.images.items() if not image.is_settled]
    lonely = [name for name, image in report.images.items() if len(image.experts) == 1]
    lines = [f"STAPLE ended before its estimate had settled: {listed(unsettled)}"] if unsettled else []
    return lines + ([f"the mask of one expert only, taken as it is: {listed(lonely)}"] if lonely else [])


def _experts_table(report: ExpertReport) -> str:
    """Return means and standard deviations of every expert, without those of background, which say little."""
    keys = [key for key in (report.experts[0] if report.experts else {}) if key.startswith(SCORES)]
    columns = _worth_showing(keys, report.classes)
    rows: list[list[Cell]] = [
        [row["expert"], row["images"], *(row.get(key) for key in columns)] for row in report.experts
    ]
    return table(["expert", "images", *(_title(key) for key in columns)], rows, name="experts")


def _worth_showing(columns: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return columns without those of background, which say little.

    The Dice of a single other class is left out, too: it is the mean.
    """
    hidden = [f"_{classes[0]}", *([f"dice_{classes[1]}"] if len(classes) == 2 else [])]
    return [key for key in columns if not key.removesuffix("_std").endswith(tuple(hidden))]


def _title(key: str) -> str:
    name = (
        key.removesuffix("_std")
        .replace("mean_dice", "Dice with the fusion")
        .replace("dice_", "Dice ")
        .replace("_", " ")
    )
    return f"{name}, s.d." if key.endswith("_std") else name


def _matrix(report: ExpertReport) -> str:
    names = report.agreement.experts
    if len(names) < 2:
        return ""
    values = [
        [None if i == j else value for j, value in enumerate(row)] for i, row in enumerate(report.agreement.mean_dice)
    ]
    return heading("Dice of every two experts") + heat(names, values)


def _boxes(report: ExpertReport) -> str:
    groups: dict[str, list[tuple[str, float]]] = {name: [] for name in report.agreement.experts}
    for name, image in report.images.items():
        for expert, value in zip(image.experts, image.mean_dice, strict=True):
            if value is not None:
                groups[expert].append((name, value))
    return side_by_side([boxes("Dice with the fusion", groups, limits=(0.0, 1.0))])


def _rows(path: Path, classes: Sequence[str]) -> Sequence[str]:
    """Return the table of experts.csv, without background; () if it is not there."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError):
        return ()
    columns = _worth_showing(list(rows[0] if rows else {}), classes)
    cells: list[list[Cell]] = [[_value(row, key) for key in columns] for row in rows]
    return (note("The content of experts.csv."), table([_title(key) for key in columns], cells, name="images"))


def _value(row: Mapping[str, str], key: str) -> Cell:
    text = row[key]
    if key in ("file", "expert"):
        return text
    return float(text) if text else None


def _origin(settings: FusionSettings) -> Origin:
    return Origin("fusion", settings.command, settings.versions)
