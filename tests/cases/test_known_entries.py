"""Cases whose entries are known are not opened to plan batches, and cases with the same sets share a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.cases.cache import CaseCache
from autoseg.core.plan import Plan
from autoseg.planning.files import PLAN_FILE


@pytest.fixture
def sources(toy_workspace):
    folder = toy_workspace.preprocessed("Dataset900_Toy")
    plan = Plan.model_validate_json((folder / PLAN_FILE).read_text())
    (name,) = plan.configurations
    names = sorted(path.stem for path in (folder / name).glob("*.json"))
    cache = CaseCache.read(folder / name, names)
    return [cache.source(case) for case in names]


def test_a_known_entry_is_that_of_the_opened_case(sources):
    def never():
        raise AssertionError

    for source in sources:
        assert replace(source, open=never).entry == source.open().entry == replace(source, known_entry=None).entry


def test_tables_of_the_same_sets_are_one_and_cannot_be_changed(sources):
    first, again = sources[0].entry.table, sources[0].open().entry.table
    assert first is again
    with pytest.raises(ValueError, match="read-only"):
        first.drawn[0, 0] = True
