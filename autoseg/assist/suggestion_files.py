"""Files with suggestions: a CSV table, JSON, and a contact sheet."""

from __future__ import annotations

import csv
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.assist.suggest import AXES, Ranking, Suggestion, load_maps
from autoseg.core.atomic import write_json, write_text
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Labels
from autoseg.inference.box_uncertainty import SHADES, UncertaintyMaps
from autoseg.io.images import read_image
from autoseg.io.png import write_png
from autoseg.report.contact_sheet import Tile, draw_contact_sheet

log = logging.getLogger(__name__)

COLUMNS = (
    "rank", "case", "axis", "slice", "x_first", "x_last", "y_first", "y_last", "z_first", "z_last", "score",
    "main_class", "drawn_for", "unannotated_share", "seen_in_training",
)  # fmt: skip
PICTURE = "suggestions.png"


@contextmanager
def maps_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder for the maps of all cases inside ``folder``, since they may be large for /tmp.

    ``folder`` is made if it is missing, and removed at the end if it is empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".maps_", dir=folder) as temporary:
            yield Path(temporary)
    finally:
        with suppress(OSError):
            folder.rmdir()


def write_suggestions(
    ranking: Ranking,
    settings: Mapping[str, Any],
    cases: Mapping[str, CaseFiles],
    labels: Labels,
    folder: Path,
    maps: Path,
    *,
    n_pictures: int,
) -> dict[str, Any]:
    """Write suggestions.csv, suggestions.json and, unless ``n_pictures`` is 0, a picture to ``folder``.

    Return the content of suggestions.json: ``settings``, the number of candidates, failed cases and suggestions.
    """
    result = {
        **settings,
        "candidates": ranking.n_candidates,
        "failed": dict(ranking.failed),
        "suggestions": [suggestion.as_json() for suggestion in ranking.suggestions],
    }
    write_text(folder / "suggestions.csv", as_csv(ranking))
    write_json(folder / "suggestions.json", result)
    (folder / PICTURE).unlink(missing_ok=True)  # a picture of an earlier run would not fit
    written = ["suggestions.csv", "suggestions.json"]
    if ranking.suggestions and n_pictures:
        written.append(PICTURE)
        shown = ranking.suggestions[:n_pictures]
        title = f"{settings['dataset']}: the first {len(shown)} of {len(ranking.suggestions)} suggestions"
        write_png(folder / PICTURE, contact_sheet(shown, cases, labels, maps, title))
    log.info("written: %s in %s", ", ".join(written), folder)
    return result


def as_csv(ranking: Ranking) -> str:
    """Return a CSV table with one row per suggestion; voxels are counted from 0, ``last`` is the box's last voxel."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for suggestion in ranking.suggestions:
        row = suggestion.as_json()
        for axis, (first, last) in row.pop("box").items():
            row |= {f"{axis}_first": first, f"{axis}_last": last}
        writer.writerow(row)
    return text.getvalue()


def contact_sheet(
    shown: tuple[Suggestion, ...], cases: Mapping[str, CaseFiles], labels: Labels, maps: Path, title: str
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a picture (height, width, 3) uint8 of the suggestions ``shown``; every case is read once."""
    tiles: dict[int, Tile] = {}
    for case in dict.fromkeys(item.case for item in shown):
        image, geometry = read_image(cases[case].images)
        uncertainty = load_maps(maps, case)
        for item in shown:
            if item.case == case:
                tiles[item.rank] = tile(item, image[0], uncertainty, geometry.spacing)
    return draw_contact_sheet([tiles[item.rank] for item in shown], labels, title=title)


def tile(
    item: Suggestion,
    image: np.ndarray[Any, np.dtype[np.float32]],
    maps: UncertaintyMaps,
    spacing: tuple[float, float, float],
) -> Tile:
    """Return the slice of a suggestion, cut from the image (z, y, x) and the maps of its case.

    Of a patch it is the slice with the highest entropy along its shortest edge in mm (``spacing`` in mm).
    """
    extent = [(high - low) * edge for low, high, edge in zip(item.low, item.high, spacing, strict=True)]
    axis = int(np.argmin(extent)) if item.axis is None else item.axis
    axis = 0 if image.shape[0] == 1 else axis
    rows, columns = (other for other in range(3) if other != axis)
    inside = maps.entropy[tuple(slice(low, high) for low, high in zip(item.low, item.high, strict=True))]
    index = item.low[axis] + int(np.argmax(inside.sum(axis=(rows, columns), dtype=np.int64)))
    box = (item.low[rows], item.low[columns], item.high[rows], item.high[columns])
    main = "" if item.main_class is None else f", {item.main_class}"
    plane = (slice(None),) * axis + (index,)
    return Tile(
        title=f"{item.rank}. {item.case}, {AXES[axis]} = {index}{main}",
        image=image[plane],
        labels=maps.labels[plane],
        entropy=maps.entropy[plane].astype(np.float32) / np.float32(SHADES),
        is_open=maps.is_open[plane],
        spacing=(spacing[rows], spacing[columns]),
        box=box if item.axis is None else None,
    )
