"""A code table says of every code what was annotated, what is learnt, and which code it was before."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from autoseg.annotation.label_counts import count_values, summarise_annotation
from autoseg.cases.code_table import CodeTable
from autoseg.dataset.labels import CaseStatement, Head, Labels, undrawn_code
from autoseg.inspection.coverage import annotated_parts
from autoseg.training.evidence.totals import Totals

SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 1], [1, 1, 0]], bool)


def test_codes_annotated_alike_have_the_first_of_them_for_their_base():
    drawn = np.array([[1, 0], [0, 1], [1, 1], [0, 1], [1, 1]], dtype=bool)
    learnt = np.array([[1, 0], [0, 1], [1, 1], [0, 1], [1, 0]], dtype=bool)
    assert CodeTable.of_sets(drawn, learnt, 2).base.tolist() == [0, 1, 2, 1, 2]


def test_nothing_known_has_the_code_of_unannotated_voxels_for_its_base():
    assert CodeTable.of_sets(SETS, SETS, 5).base.tolist() == [0, 1, 2, 5, 4, 5]


def test_the_questions_to_a_table_by_hand():
    table = CodeTable.of_sets(SETS, SETS, 5)
    assert len(table) == 6
    assert table.informative.tolist() == [True, True, True, False, True, True]
    assert table.annotated.tolist() == [True, True, True, False, True, False]  # the last says only "not class 2"
    assert table.foreground.tolist() == [False, True, True, False, True, False]
    assert table.single.tolist() == [True, True, True, False, False, False]
    positive, negative = table.head_states(np.array([[0, 1, 1], [0, 0, 1]], bool))
    assert positive.T.tolist() == [[False, True, True, False, True, False], [False, False, True, False, False, False]]
    assert negative.T.tolist() == [[True, False, False, False, False, False], [True, True, False, False, False, True]]


def test_a_set_as_wide_as_can_be_is_annotated_where_no_voxel_is_unannotated():
    assert CodeTable.of_sets(SETS, SETS, 3).annotated.tolist() == [True, True, True, False, True, True]


def test_annotated_voxels_are_counted_alike_in_a_file_and_in_its_code_table():
    """A set of all classes but the absent one is annotated only if no file value means "unannotated"."""
    statements = {"x": CaseStatement(absent=frozenset({2}))}
    heads = tuple(Head(name, (k,), (k,), is_background=k == 0) for k, name in enumerate("bac"))
    for ignore, n_annotated in ((None, 7), (9, 3)):
        labels = Labels(
            (0, 1, 2), ("b", "a", "c"), heads, ignore=ignore, set_values={5: frozenset({0, 1})}, statements=statements
        )
        file_labels = np.array([0, 1, 1, 5, 5, 5, 5])
        codes, label_sets = labels.encode(file_labels, "x")
        table = CodeTable.of_sets(label_sets, label_sets, undrawn_code(labels, "x"))
        assert int(table.annotated[codes].sum()) == n_annotated
        assert summarise_annotation(count_values(file_labels), labels, "x").drawn == n_annotated
        parts = annotated_parts(file_labels[:, None, None], count_values(file_labels), labels, "x")
        assert parts[0].sum() == (20 if ignore is None else 9)  # 3 of 7 slices reach into 9 of 20 parts
        entry = SimpleNamespace(table=table, code_counts=count_values(codes), record=SimpleNamespace(case="x"))
        assert Totals.of([entry], labels).n_drawn == n_annotated


def test_extra_codes_come_after_those_of_the_case():
    learnt = SETS.copy()
    learnt[3] = [True, False, False]
    held_out = np.array([0, 1, 0, 0, 0, 0], bool)
    table = CodeTable.of_sets(SETS, learnt, 3).with_extra_codes(held_out, 2)
    assert len(table) == 2 * 6 + 2
    assert table.base.tolist() == [*range(6), *range(6), 3, 3]
    assert np.flatnonzero(table.held_out).tolist() == [7]
    assert table.drawn[7].tolist() == [False, True, False] and table.learnt[6:12].all()
    assert table.learnt[12:].tolist() == [[True, False, False]] * 2  # what promises leave holds in zones, too
    assert table.zone.tolist() == [-1] * 12 + [0, 1]
    assert table.annotated[7] and not table.annotated[12:].any()
