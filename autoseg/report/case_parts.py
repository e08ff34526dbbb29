"""Parts of a page about cases: choice of those that are shown, their pictures, and the table of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import Labels
from autoseg.report.case_panels import PictureFiles, draw_case, uncertainty_colours, unknown_colour
from autoseg.report.class_maps import ERROR_COLOURS, UNMATCHED, meaning_pixels, plain_pixels
from autoseg.report.page import Cell, Link, heading, keys, note, slices, swatch, table
from autoseg.sampling.patch_view import Meaning

CaseKey = tuple[str, str]
"""Name of a fold, "" where there is one only, and name of a case."""


@dataclass(frozen=True, slots=True)
class ShownCase:
    """A case that is shown in pictures."""

    key: CaseKey
    title: str
    anchor: str
    """Id of its place in the page."""


def choose(ranked: Sequence[tuple[CaseKey, str]], n_each: int, names: Sequence[str]) -> tuple[ShownCase, ...]:
    """Return the first, the middle and the last ``n_each`` of ranked cases (key, text of its score), each once.

    ``names`` are those of the three groups. All cases, if there are at most three times as many.
    """
    n = len(ranked)
    if n <= 3 * n_each:
        places = [(f"{index + 1} of {n}", index) for index in range(n)]
    else:
        middle = (n - n_each) // 2
        starts = (0, middle, n - n_each)
        places = [
            (name if n_each == 1 else f"{name}, {index - start + 1} of {n_each}", index)
            for name, start in zip(names, starts, strict=True)
            for index in range(start, start + n_each)
        ]
    return tuple(
        ShownCase(key, f"{key[1]}: {score} ({place})" if score else f"{key[1]} ({place})", f"case-{number}")
        for number, (place, index) in enumerate(places, 1)
        for key, score in [ranked[index]]
    )


def pictures(
    shown: Sequence[ShownCase], files: Mapping[CaseKey, PictureFiles], dataset: Dataset | None
) -> tuple[list[str], list[str]]:
    """Return HTML with the slices of cases and their legend, and remarks on what could not be shown.

    Cases without files are left out.
    """
    if dataset is None:
        return [], []
    parts: list[str] = []
    remarks: list[str] = []
    meanings: set[Meaning] = set()
    has_errors = has_uncertainty = False
    for case in shown:
        if case.key not in files:
            continue
        own = files[case.key]
        drawn = draw_case(own, dataset.labels, dataset.channels)
        remarks += drawn.remarks
        meanings |= drawn.meanings
        captions = {caption for _, panels in drawn.slices for caption, _ in panels}
        has_errors, has_uncertainty = has_errors or "errors" in captions, has_uncertainty or "uncertainty" in captions
        rows = [
            (note(name) if name else "") + slices(panels, f"{case.key[1]}, {name}" if name else case.key[1])
            for name, panels in drawn.slices
        ]
        parts.append(f'<div class="case">{heading(case.title, case.anchor)}{"".join(rows)}</div>')
    legend = _legend(dataset.labels, meanings, has_errors=has_errors, has_uncertainty=has_uncertainty)
    return [legend, *parts], remarks


def case_rows(
    name: str, columns: Sequence[str], rows: Mapping[CaseKey, Sequence[Cell]], shown: Sequence[ShownCase]
) -> str:
    """Return a table of cases that can be sorted and filtered; cases that are shown lead to their pictures.

    ``name`` is the id of the table. "" without columns or rows.
    """
    anchors = {case.key: case.anchor for case in shown}
    cells: list[list[Cell]] = [
        [Link(key[1], anchors[key]) if key in anchors else key[1], *row] for key, row in rows.items()
    ]
    return table(["case", *columns], cells, name=name) if columns else ""


def _legend(labels: Labels, meanings: set[Meaning], *, has_errors: bool, has_uncertainty: bool) -> str:
    order = {"annotated": 0, "unannotated": 1}
    entries = [
        (swatch(meaning_pixels(meaning, labels)), meaning.text(labels))
        for meaning in sorted(meanings, key=lambda m: (order.get(m.kind, 2), len(m.classes), sorted(m.classes)))
        if not (labels.is_dense and meaning.classes == {0})
    ]
    shown_errors = [item for item in ERROR_COLOURS.items() if item[0] != UNMATCHED or labels.instances is not None]
    errors = [(swatch(plain_pixels(colour)), kind) for kind, colour in shown_errors] if has_errors else []
    numbers = [(swatch(unknown_colour()), "no number known")] if labels.targets else []
    shades = note("Objects that touch have other shades of the colour of their class, and lines between them.")
    heat = [(swatch(uncertainty_colours()), "entropy from 0 to 1")] if has_uncertainty else []
    return (
        keys([*entries, *numbers], "truth and prediction:" if has_errors else "")
        + keys(errors, "errors:")
        + keys(heat, "uncertainty:")
        + (shades if labels.instances is not None else "")
    )
