from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from autoseg.cases.entry import CacheEntry
from autoseg.core.errors import AutosegError, CacheError, ConfigError, ModelError, PlanError
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.nn.checkpoint import load_checkpoint, save_checkpoint
from autoseg.nn.compiling import compile_network
from autoseg.planning.files import FINGERPRINT_FILE, PLAN_FILE, load_fingerprint, load_plan
from autoseg.training import fold as fold_module
from autoseg.training import run_files
from autoseg.training.batches import validation_batches
from autoseg.training.fold import build_parts, train_fold
from autoseg.training.prepare import check_folder, check_start, prepare_fold
from autoseg.training.request import FoldRequest
from autoseg.training.resuming import settings_of
from autoseg.training.run_checkpoints import BEST, FINAL, LATEST
from autoseg.training.run_config import RunOptions, fold_config, is_scribbled, settings_for_scribbles
from autoseg.training.validation import validate_fold

TIMES = ("seconds", "iterations_per_second", "data_wait", "memory_gb")
"""Of a line of history.jsonl: what differs from run to run."""
SETTINGS = ("precision=float32", "iterations_per_epoch=4", "validation_iterations=2")


@pytest.fixture
def request_of(toy_folder: Path, toy_workspace: Workspace, tmp_path: Path):
    torch.set_num_threads(1)

    def make(iterations: int = 10, **options) -> FoldRequest:
        settings = (*SETTINGS, *options.pop("settings", ()))
        run = RunOptions("0", iterations=iterations, settings=settings, workers=0, device="cpu", **options)
        return replace(prepare_fold(toy_workspace, Dataset.load(toy_folder), run), folder=tmp_path / "run" / "fold_0")

    return make


def weights_of(folder: Path, name: str = FINAL) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / name).weights


def stop_after(n: int):
    steps = iter(range(n))
    return lambda: next(steps, None) is None


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(0,), (2,), (3, 1), (4, 3)], ids=str)
def test_a_run_that_was_stopped_and_resumed_is_bit_by_bit_the_one_that_was_not(request_of, tmp_path, stops):
    whole = replace(request_of(), folder=tmp_path / "whole" / "fold_0")
    train_fold(whole)
    request = request_of()
    for index, n in enumerate(stops):
        assert not train_fold(request, resume=index > 0, should_stop=stop_after(n)).is_finished
    assert train_fold(request, resume=True).is_finished
    expected, found = weights_of(whole.folder), weights_of(request.folder)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)

    def lines(folder):
        records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        return [record | dict.fromkeys(TIMES) for record in records]

    assert lines(whole.folder) == lines(request.folder)
    assert [record["iteration"] for record in lines(request.folder)] == [4, 8, 10]


@pytest.mark.slow
@pytest.mark.parametrize("normalization", ["instance", "batch"])
def test_a_resumed_run_drops_the_same_channels(request_of, tmp_path, normalization):
    def with_dropout(request: FoldRequest) -> FoldRequest:
        n_levels = request.configuration.topology.n_stages
        changes = {"dropout": (0.3,) * n_levels, "normalization": normalization}
        topology = request.configuration.topology.model_copy(update=changes)
        configuration = request.configuration.model_copy(update={"topology": topology})
        plan = request.plan.model_copy(update={"configurations": {configuration.name: configuration}})
        return replace(request, plan=plan, configuration=configuration)

    whole = replace(with_dropout(request_of(6)), folder=tmp_path / "whole" / "fold_0")
    train_fold(whole)
    request = with_dropout(request_of(6))
    assert not train_fold(request, should_stop=stop_after(3)).is_finished
    assert train_fold(request, resume=True).is_finished
    expected, found = weights_of(whole.folder), weights_of(request.folder)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    train_fold(replace(request_of(6), folder=tmp_path / "plain" / "fold_0"))
    plain = weights_of(tmp_path / "plain" / "fold_0")
    assert not all(torch.equal(plain[name], found[name]) for name in plain)


def test_the_file_of_a_run_that_asks_for_another_network_is_answered_with_a_command(request_of, tmp_path, caplog):
    path = tmp_path / "run.toml"
    path.write_text('[network]\nlevels = 9\nactivation = "leaky_relu"\n[optimizer]\nlearning_rate = 0.5\n')
    request = request_of(run_file=path)
    assert request.config.optimizer.learning_rate == 0.5
    (warning,) = [text for text in caplog.messages if "network" in text]
    assert "made without network.levels=9, so" in warning and f"--config {path}" in warning


def test_seed_decides_everything_and_another_seed_is_another_run(request_of, tmp_path):
    results = []
    for number, seed in enumerate((1, 1, 2)):
        request = replace(request_of(iterations=3, seed=seed), folder=tmp_path / str(number) / "fold_0")
        train_fold(request)
        results.append(weights_of(request.folder))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert not all(torch.equal(results[0][name], results[2][name]) for name in results[0])


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(request_of, tmp_path):
    results = []
    for workers in (0, 2):
        request = replace(request_of(iterations=3), workers=workers, folder=tmp_path / str(workers) / "fold_0")
        train_fold(request)
        results.append(weights_of(request.folder))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.slow
def test_training_learns_the_toy_task_and_validation_scores_it(request_of):
    request = request_of(iterations=150, settings=("augmentation=none", "iterations_per_epoch=50"))
    result = train_fold(request)
    assert result.progress.records[-1].train_loss < result.progress.records[0].train_loss
    summary = validate_fold(request)
    assert summary.foreground_mean["Dice"] > 0.5
    assert {case.case for case in summary.metric_per_case} == set(request.val_cases)
    assert json.loads((request.folder / "validation" / "summary.json").read_text())["scored_on"] != "dense"
    for name in (LATEST, BEST, FINAL, "history.jsonl", "progress.png", "training.json"):
        assert (request.folder / name).stat().st_size > 0


@pytest.mark.parametrize(("share", "expected"), [(1e-9, [1, 3]), (1e9, [1, 2, 3])])
def test_curves_show_the_first_line_and_the_last_and_others_as_their_share_of_time_allows(
    request_of, monkeypatch, share, expected
):
    drawn = []

    def draw(path, records):
        time.sleep(0.001)
        drawn.append(len(records))

    monkeypatch.setattr(run_files, "draw_history", draw)
    monkeypatch.setattr(run_files, "DRAWING_SHARE", share)
    train_fold(request_of(iterations=12))
    assert drawn == expected


def test_time_that_is_up_ends_a_run_as_finished_and_counts_over_all_sessions(request_of, caplog):
    request = request_of(iterations=10_000, max_runtime_s=1e-6)
    result = train_fold(request)
    assert result.is_finished
    assert result.progress.iteration == 1
    assert (request.folder / FINAL).is_file()
    assert check_folder(request.folder, resume=True, overwrite=False)  # as the message of a second start advises
    assert train_fold(request, resume=True).progress.iteration == 1
    assert "nothing is left to do" in caplog.text
    longer = request_of(iterations=10_000, max_runtime_s=result.progress.seconds + 1e-6)
    again = train_fold(longer, resume=True)
    assert again.progress.iteration == 2
    assert again.progress.seconds > result.progress.seconds
    assert settings_of(request.folder)["max_runtime"] == longer.config.max_runtime


def test_pretrained_weights_are_the_start(request_of, tmp_path):
    first = request_of(iterations=2)
    train_fold(first)
    start = replace(request_of(), pretrained=first.folder / FINAL, folder=tmp_path / "second" / "fold_0")
    train_fold(start, should_stop=lambda: True)
    moved = weights_of(start.folder, LATEST)
    fresh = build_parts(start, "float32").network.state_dict()
    trained = weights_of(first.folder)
    name = "encoder.0.0.conv.weight" if "encoder.0.0.conv.weight" in trained else next(iter(trained))
    assert (moved[name] - trained[name]).abs().max() < (moved[name] - fresh[name]).abs().max()


def test_resume_refuses_other_settings_and_names_them(request_of):
    train_fold(request_of(), should_stop=lambda: True)
    with pytest.raises(ModelError, match=r"seed is 3, was 0"):
        train_fold(request_of(seed=3), resume=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(request_of):
    request = request_of(settings=("learning_rate=1e30", "optimizer=sgd", "gradient_clip=1e30"))
    with pytest.raises(AutosegError, match=r"training: the loss is .* near iteration"):
        train_fold(request)


def test_regions_train_with_sigmoid_heads(toy_folder, toy_workspace, tmp_path):
    torch.set_num_threads(1)
    content = json.loads((toy_folder / "dataset.json").read_text())
    content["labels"] = {"background": 0, "whole": [1, 2], "brighter": 2, "ignore": 3}
    content["regions_class_order"] = [1, 2]
    described = Dataset.from_json(content, name="regions", folder=toy_folder)
    options = RunOptions("0", iterations=4, settings=SETTINGS, workers=0, device="cpu")
    plain = prepare_fold(toy_workspace, Dataset.load(toy_folder), options)
    dataset = replace(described, cases=Dataset.load(toy_folder).cases)
    request = replace(plain, dataset=dataset, folder=tmp_path / "run" / "fold_0")
    result = train_fold(request)
    assert set(result.progress.records[-1].dice_per_head) == {"whole", "brighter"}
    assert validate_fold(request).mean.keys() == {"(1, 2)", "2"}


def test_prepare_names_what_is_missing(toy_folder, toy_workspace, tmp_path):
    dataset = Dataset.load(toy_folder)
    with pytest.raises(PlanError, match=r"plans\.json: no such file"):
        prepare_fold(Workspace(tmp_path), dataset, RunOptions("0"))
    with pytest.raises(PlanError, match="no configuration '2d'"):
        prepare_fold(toy_workspace, dataset, RunOptions("0", configuration="2d"))
    with pytest.raises(ConfigError, match=r"fold 5 .*expected one of"):
        prepare_fold(toy_workspace, dataset, RunOptions("5"))
    with pytest.raises(ConfigError, match="fold: found 'x', expected a number"):
        prepare_fold(toy_workspace, dataset, RunOptions("x"))
    with pytest.raises(ConfigError, match="--epochs and --iterations: both"):
        prepare_fold(toy_workspace, dataset, RunOptions("0", epochs=1, iterations=1))


def test_prepare_refuses_a_stale_cache_and_says_which_case(toy_folder, toy_workspace):
    content = json.loads((toy_folder / "dataset.json").read_text())
    content["labels"] = {"background": 0, "one": 1, "two": 2, "ignore": 250}
    changed = replace(
        Dataset.from_json(content, name="Dataset900_Toy", folder=toy_folder), cases=Dataset.load(toy_folder).cases
    )
    with pytest.raises(CacheError, match=r"stale cases: toy_000 .*Run autoseg_plan_and_preprocess"):
        prepare_fold(toy_workspace, changed, RunOptions("0"))


def test_fold_all_trains_and_validates_on_everything(toy_folder, toy_workspace):
    request = prepare_fold(toy_workspace, Dataset.load(toy_folder), RunOptions("all", epochs=3))
    assert request.train_cases == request.val_cases == Dataset.load(toy_folder).case_names
    assert request.config.iterations == 3 * request.config.iterations_per_epoch


def test_a_folder_with_a_run_is_neither_overwritten_nor_mixed(request_of):
    request = request_of(iterations=1)
    assert not check_folder(request.folder, resume=True, overwrite=False)
    train_fold(request)
    with pytest.raises(ConfigError, match="found the checkpoints of an earlier run"):
        check_folder(request.folder, resume=False, overwrite=False)
    with pytest.raises(ConfigError, match="--resume and --overwrite: found both"):
        check_folder(request.folder, resume=True, overwrite=True)
    assert check_folder(request.folder, resume=True, overwrite=False)
    (request.folder / LATEST).unlink()
    for resume in (False, True):
        with pytest.raises(ConfigError, match="which cannot go on") as refused:
            check_folder(request.folder, resume=resume, overwrite=False)
        assert "--resume" not in str(refused.value)
    assert not check_folder(request.folder, resume=False, overwrite=True)
    assert not request.folder.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": "cuda:99"}, {"settings": ["augmentation=strong"]}, {"settings": ["optimizer=adm"]},
        {"settings": ["preview_cases=nobody"]}, {"settings": ["loss=focal"]}, {"settings": ["class_weights=1,2"]},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_start_is_refused_before_a_run_is_overwritten(toy_folder, toy_workspace, wrong):
    request = prepare_fold(toy_workspace, Dataset.load(toy_folder), RunOptions("0", workers=0, **wrong))
    with pytest.raises(ConfigError):
        check_start(request, resume=False, overwrite=True)


def test_only_scribbled_data_get_the_background_prior_and_context(toy_folder, toy_workspace, tmp_path):
    dataset = Dataset.load(toy_folder)
    sliced = load_fingerprint(toy_workspace.preprocessed(dataset.name) / FINGERPRINT_FILE)
    few_slices = sliced.model_copy(update={"drawn_fraction": dict.fromkeys(sliced.cases, 0.01)})
    scribbled = few_slices.model_copy(update={"annotated_in_slices": dict.fromkeys(sliced.cases, 0.2)})
    assert not is_scribbled(dataset, sliced)
    assert not is_scribbled(dataset, few_slices)
    assert is_scribbled(dataset, scribbled)
    assert not is_scribbled(replace(dataset, labels=replace(dataset.labels, ignore=None)), scribbled)
    plan = load_plan(toy_workspace.preprocessed(dataset.name) / PLAN_FILE)
    resolved = fold_config(plan, dataset, scribbled, RunOptions("0"), tmp_path)
    assert (resolved.config.evidence.background_prior, resolved.config.sampling.context_fraction) == (0.5, 0.7)
    assert resolved.origins["evidence.background_prior"] == "scribbled data"
    switched_off = RunOptions("0", settings=("background_prior=0", "context_fraction=0"))
    assert fold_config(plan, dataset, scribbled, switched_off, tmp_path).config.evidence.background_prior == 0
    assert fold_config(plan, dataset, sliced, RunOptions("0"), tmp_path).config.evidence.background_prior == 0
    promised = replace(dataset, protocol=AnnotationProtocol(reach_mm=20.0))
    assert settings_for_scribbles(promised) == {"evidence.background_prior": 0, "sampling.context_fraction": 0.7}


def test_the_file_of_a_run_wins_over_that_of_the_user_and_flags_over_both(toy_folder, toy_workspace, tmp_path):
    dataset = Dataset.load(toy_folder)
    preprocessed = toy_workspace.preprocessed(dataset.name)
    plan, fingerprint = load_plan(preprocessed / PLAN_FILE), load_fingerprint(preprocessed / FINGERPRINT_FILE)
    (tmp_path / "user.toml").write_text("seed = 1\n[optimizer]\nname = 'sgd'\nmomentum = 0.5\n")
    (tmp_path / "run.toml").write_text("iterations = 7\n[optimizer]\nmomentum = 0.25\n")
    files = {"user_file": tmp_path / "user.toml", "run_file": tmp_path / "run.toml"}
    options = RunOptions("0", iterations=9, settings=["optimizer.weight_decay=0"], **files)
    resolved = fold_config(plan, dataset, fingerprint, options, tmp_path)
    optimizer = resolved.config.optimizer
    assert (resolved.config.seed, resolved.config.iterations) == (1, 9)
    assert (optimizer.name, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.25, 0)
    assert resolved.origins["optimizer.momentum"] == str(tmp_path / "run.toml")


INFERRING = ("augmentation=none", "background_prior=0.5", "context_fraction=0.5", "teacher_weight=0.5")


@pytest.mark.slow
def test_the_prior_learns_from_held_out_and_unknown_voxels_of_the_run(request_of):
    request = request_of(iterations=12, settings=(*INFERRING, "teacher_weight=0", "held_out_fraction=0.3"))
    train_fold(request)
    state = load_checkpoint(request.folder / FINAL).state["evidence"]["background_prior"]
    assert (state["unannotated"][1].sum(1) > 0).any() and (state["held_out"][1::2] > 0).all()
    parts = build_parts(request, "float32")
    _, prior = parts.evidence
    prior.restore(state, parts.network)
    rates = prior.rates()
    assert ((rates > 0) & (rates <= 1)).all()


@pytest.mark.slow
def test_prior_and_teacher_are_resumed_bit_by_bit(request_of, tmp_path):
    settings = (*INFERRING, "teacher_start=0.2", "teacher_precision=0", "teacher_confidence=0.51")
    whole = replace(request_of(settings=settings), folder=tmp_path / "whole" / "fold_0")
    train_fold(whole)
    request = request_of(settings=settings)
    assert not train_fold(request, should_stop=stop_after(6)).is_finished
    assert train_fold(request, resume=True).is_finished
    expected, found = load_checkpoint(whole.folder / FINAL), load_checkpoint(request.folder / FINAL)
    assert all(torch.equal(expected.weights[name], found.weights[name]) for name in expected.weights)
    one, other = expected.state["evidence"], found.state["evidence"]
    assert list(one) == ["promises", "background_prior", "teacher"]
    for part in ("background_prior", "teacher"):
        assert all(torch.equal(tensor, dict(tensors_in(other[part]))[key]) for key, tensor in tensors_in(one[part]))


def tensors_in(state):
    """Yield (key, tensor) of a state of tensors and dictionaries of tensors."""
    for key, value in state.items():
        yield from tensors_in(value) if isinstance(value, dict) else [(key, value)]


def test_a_run_without_the_state_of_a_source_of_evidence_is_not_resumed(request_of):
    request = request_of(settings=INFERRING)
    train_fold(request, should_stop=stop_after(2))
    latest = load_checkpoint(request.folder / LATEST)
    state = {
        **latest.state,
        "evidence": {"promises": {}, "background_prior": latest.state["evidence"]["background_prior"]},
    }
    save_checkpoint(request.folder / LATEST, replace(latest, state=state))
    with pytest.raises(ModelError, match="holds no state of 'teacher'"):
        train_fold(request, resume=True)


def test_dense_data_infer_nothing(request_of):
    request = request_of(settings=("background_prior=1",))
    dense = replace(request.dataset, labels=replace(request.dataset.labels, ignore=None))
    assert [source.name for source in build_parts(request, "float32").evidence] == ["promises", "background_prior"]
    assert build_parts(replace(request, dataset=dense), "float32").evidence == ()


def test_resume_refuses_other_cases_and_other_classes(request_of):
    request = request_of()
    train_fold(request, should_stop=stop_after(2))
    moved = replace(request, train_cases=request.train_cases[1:], val_cases=request.train_cases[:1])
    with pytest.raises(ModelError, match=r"training cases .*changed; validation cases"):
        train_fold(moved, resume=True)
    labels = request.dataset.labels
    renamed = replace(labels, class_names=(labels.class_names[0], *reversed(labels.class_names[1:])))
    with pytest.raises(ModelError, match="classes of the data set changed"):
        train_fold(replace(request, dataset=replace(request.dataset, labels=renamed)), resume=True)
    assert train_fold(request, resume=True).is_finished


def test_what_is_known_of_the_cases_is_read_before_the_run(request_of, monkeypatch):
    request = request_of(iterations=2)
    monkeypatch.setattr(CacheEntry, "model_validate_json", None)
    assert train_fold(request).is_finished


def test_validation_asks_neither_for_priority_nor_for_annotation(request_of, toy_workspace):
    request = request_of(iterations=4)
    never = tuple(replace(case, priority=0.0) for case in request.dataset.cases)
    cases = replace(request.dataset, cases=never)
    assert list(validation_batches(replace(request, dataset=cases)))
    unseen = replace(request, val_cases=())
    assert list(validation_batches(unseen)) == []
    progress = train_fold(unseen).progress
    assert progress.records[-1].dice is None and progress.records[-1].validation_loss is None


def test_a_compiled_run_saves_the_weights_of_the_plain_network(request_of, tmp_path, monkeypatch):
    plain = replace(request_of(iterations=2), folder=tmp_path / "plain" / "fold_0")
    train_fold(plain)
    monkeypatch.setattr(fold_module, "compile_network", partial(compile_network, backend="eager"))
    compiled = request_of(iterations=2, settings=("compile=true",))
    train_fold(compiled)
    expected, found = weights_of(plain.folder), weights_of(compiled.folder)
    assert list(expected) == list(found)
    assert all(torch.allclose(expected[name], found[name], atol=1e-6) for name in expected)
    torch._dynamo.reset()
