"""The examples of docs/api.md run as written, and every function refuses what its command refuses."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from toy import write_toy_dataset

import autoseg
from autoseg import api
from autoseg.core.errors import ConfigError, PlanError

PAGE = Path(__file__).parent.parent / "docs" / "api.md"


def examples(page: Path) -> list[tuple[int, str]]:
    """Return the Python blocks of a page with the number of their first line."""
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start(1)].count("\n"), m[1]) for m in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S)]


@pytest.mark.slow
def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_toy_dataset(tmp_path / "Dataset900_Toy")
    write_toy_dataset(tmp_path / "Dataset901_Dense", sparse=False, seed=1)
    names = {"__name__": "page"}  # the last example starts processes in a script only
    blocks = examples(PAGE)
    assert len(blocks) > 8
    for line, block in blocks:
        exec(compile("\n" * line + block, str(PAGE), "exec"), names)  # noqa: S102
    assert {"patches.png", "summary.json", "toy_000.nii.gz", "Completed"} <= {path.name for path in tmp_path.iterdir()}


def test_the_page_names_everything_that_is_public():
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in autoseg.__all__ if f"`{name}" not in text] == []


def test_every_function_of_the_module_is_public_and_annotated():
    functions = {name: f for name, f in vars(api).items() if inspect.isfunction(f) and f.__module__ == api.__name__}
    functions = {name: function for name, function in functions.items() if not name.startswith("_")}
    assert set(functions) <= set(autoseg.__all__)
    for name, function in functions.items():
        assert function.__doc__, name
        assert all(p.annotation is not p.empty for p in inspect.signature(function).parameters.values()), name


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no_such_name"):
        autoseg.no_such_name  # noqa: B018


def test_faults_of_a_data_set_are_reported_and_not_raised(toy_folder, tmp_path):
    broken = tmp_path / "Dataset900_Toy"
    write_toy_dataset(broken, n_cases=2)
    (broken / "labelsTr" / "toy_000.nii.gz").write_bytes(b"no image")
    report = autoseg.check(broken)
    assert any("toy_000" in str(fault) for fault in report.faults)
    with pytest.raises(autoseg.DatasetError, match="toy_000"):
        report.raise_if_faulty()
    assert not autoseg.check(autoseg.Dataset.load(toy_folder)).faults


def test_what_comes_too_early_is_refused(toy_folder, tmp_path):
    with pytest.raises(PlanError, match="autoseg_plan_and_preprocess"):
        autoseg.preprocess(toy_folder, root=tmp_path)
    with pytest.raises(PlanError, match="autoseg_plan_and_preprocess"):
        autoseg.train(toy_folder, 0, root=tmp_path)


def test_an_edited_plan_and_the_configurations_of_before_are_kept(toy_folder, tmp_path):
    made = autoseg.plan(toy_folder, root=tmp_path, planner="small")
    path = autoseg.Workspace(tmp_path).preprocessed("Dataset900_Toy") / "plans.json"
    batch_size = made.configurations["2d"].batch_size
    path.write_text(path.read_text().replace(f'"batch_size": {batch_size}', f'"batch_size": {batch_size + 1}'))
    assert autoseg.preprocess(toy_folder, root=tmp_path, configurations=["2d"]) == ("2d",)
    kept = autoseg.plan(toy_folder, root=tmp_path)
    assert kept.planner == "small" and kept.configurations["2d"].batch_size == batch_size + 1
    assert autoseg.preprocess(toy_folder, root=tmp_path) == ("2d",)
    with pytest.raises(ConfigError, match="batch_size"):
        autoseg.plan(toy_folder, root=tmp_path, planner="default")
    assert autoseg.plan(toy_folder, root=tmp_path, replan=True).configurations["2d"].batch_size == batch_size


def test_settings_are_checked_as_on_the_command_line(toy_folder, toy_workspace):
    with pytest.raises(ConfigError, match="no_such_setting"):
        autoseg.train(toy_folder, 0, root=toy_workspace.root, settings={"no_such_setting": 1})
