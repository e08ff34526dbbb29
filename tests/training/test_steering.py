from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from autoseg.core.errors import ConfigError, StorageError, TrainingError, WorkerError
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.nn.checkpoint import load_checkpoint
from autoseg.nn.losses.registry import TRIAL_EDGE
from autoseg.report.history import read_history
from autoseg.training import speed
from autoseg.training.commands import COMMANDS, MAILBOX, Mailbox
from autoseg.training.fold import build_parts, train_fold
from autoseg.training.prepare import prepare_fold
from autoseg.training.pretrained import Before
from autoseg.training.progress import Progress
from autoseg.training.run_checkpoints import BEST, FINAL, LATEST, PREVIOUS, load_latest
from autoseg.training.run_config import RunOptions
from autoseg.training.run_files import RunFiles
from autoseg.training.run_lock import is_running
from autoseg.training.run_record import RunRecord
from autoseg.training.run_state import RunState
from autoseg.training.trainer import Console

SETTINGS = ("precision=float32", "iterations_per_epoch=4", "validation_iterations=1", "batch_picture=0")


@pytest.fixture
def request_of(toy_folder: Path, toy_workspace: Workspace, tmp_path: Path):
    torch.set_num_threads(1)

    def make(*settings: str, iterations: int = 10, name: str = "run", **options):
        run = RunOptions(
            "0", iterations=iterations, settings=(*SETTINGS, *settings), workers=0, device="cpu", **options
        )
        return replace(prepare_fold(toy_workspace, Dataset.load(toy_folder), run), folder=tmp_path / name / "fold_0")

    return make


class Script:
    """A console in which each visit gives some commands: step at which it is asked for -> commands."""

    def __init__(self, visits):
        self.visits, self.step, self.answers = visits, 0, {}

    def is_wanted(self):
        self.step += 1
        return self.step in self.visits

    def talk(self, execute, is_over):
        for text in self.visits[self.step]:
            self.answers[text] = execute(text)
            if is_over():
                return

    def console(self):
        return Console(self.is_wanted, self.talk)


def steered(request, visits, **options):
    script = Script(visits)
    return train_fold(request, console=script.console(), **options), script.answers


def test_every_command_works_and_answers_one_line(request_of):
    request = request_of()
    commands = (
        "status", "save mine", "load mine", "setlr 0.001", "setmom 0.5", "sethist 3", "set checkpoint_every 7",
        "params", "batch", "eval", "preview", "print config.optimizer.momentum", "print progress.iteration",
        "optimizer sgd", "help", "q",
    )  # fmt: skip
    result, answers = steered(request, {2: commands, 7: ("abort",)})
    assert {text.split()[0] for text in answers} == set(COMMANDS) - {"kill", "python"}
    assert all(answer and "\n" not in answer and not answer.startswith("error") for answer in answers.values()), answers
    assert not result.is_finished and result.progress.iteration == 7
    assert answers["print config.optimizer.momentum"] == "0.5"
    assert answers["print progress.iteration"] == "2"
    assert [record.iteration for record in result.progress.records] == [3, 6]
    for name in ("mine.pt", "batch_0000003.png", "params.txt"):
        assert (request.folder / name).stat().st_size > 0
    assert len(list((request.folder / "previews").glob("*.png"))) == 1


def test_changes_are_in_the_checkpoint_and_survive_resume(request_of):
    request = request_of()
    steered(request, {2: ("setlr 0.001", "setmom 0.5", "optimizer sgd", "setlr 0.002"), 5: ("abort",)})
    latest = load_checkpoint(request.folder / LATEST)
    assert [change["iteration"] for change in latest.state["changes"]] == [2, 2, 2, 2]
    settings = latest.training["optimizer"]
    assert (settings["name"], settings["momentum"]) == ("sgd", None)
    assert json.loads((request.folder / "training.json").read_text())["changes"] == latest.state["changes"]
    resumed = request_of("optimizer.name=sgd", f"learning_rate={settings['learning_rate']}")
    assert train_fold(resumed, resume=True).is_finished
    assert load_checkpoint(request.folder / FINAL).state["changes"] == latest.state["changes"]


@pytest.mark.slow
def test_a_steered_run_that_is_resumed_has_the_weights_of_one_that_was_not(request_of):
    whole, parted = request_of(name="whole"), request_of(name="parted")
    commands = ("setmom 0.5", "setlr 0.003", "set weight_decay 0.1")
    steered(whole, {2: commands})
    steered(parted, {2: commands, 5: ("abort",)})
    config = load_checkpoint(parted.folder / LATEST).training
    optimizer = config["optimizer"]
    keys = ("momentum", "learning_rate", "weight_decay")
    train_fold(replace(request_of(*(f"{key}={optimizer[key]}" for key in keys)), folder=parted.folder), resume=True)
    one, other = (load_checkpoint(request.folder / FINAL).weights for request in (whole, parted))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_change_right_after_a_line_of_the_history_is_saved_when_the_run_ends(request_of):
    request = request_of()
    result, _ = steered(request, {4: ("setmom 0.5", "abort")})
    assert [record.iteration for record in result.progress.records] == [4]
    assert load_checkpoint(request.folder / LATEST).training["optimizer"]["momentum"] == 0.5


def test_a_checkpoint_of_another_optimiser_is_refused_and_one_of_another_momentum_takes_the_present_one(request_of):
    request = request_of("optimizer.name=adamw")
    visits = {
        2: ("save mine", "setmom 0.5", "load mine", "save momentum"),
        4: ("optimizer sgd", "load mine ", "optimizer adamw"),
    }
    result, answers = steered(request, visits)
    assert result.is_finished
    assert answers["load mine"].startswith("weights and optimiser are those of mine.pt")
    groups = load_checkpoint(request.folder / "momentum.pt").state["optimizer"]["param_groups"]
    assert [group["betas"][0] for group in groups] == [0.5, 0.5]
    assert "state of the optimiser adamw, expected sgd" in answers["load mine "]


def test_the_learning_rate_is_the_one_that_was_set_and_the_schedule_goes_on_from_it(request_of):
    rates = []
    train_fold(
        request_of("history_freq=1"),
        on_steps=lambda progress, loss, rate: rates.append(rate),
        console=Script({5: ("setlr 0.5",)}).console(),
    )
    assert rates[5] == pytest.approx(0.5)
    assert rates[6] < rates[5]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("setlr fast", "a number above 0"),
        ("setlr -1", "a number above 0"),
        ("setmom 1.5", "less than 1"),
        ("set seed 3", "expected KEY VALUE"),
        ("set iterations 3", "expected KEY VALUE"),
        ("set preview_cases nobody", "found nobody, expected cases of"),
        ("save ../other", "without a folder"),
        ("save checkpoint_final", "writes this file itself"),
        ("load nothing", "no such file"),
        ("optimizer best", "expected one of"),
        ("print config.__class__", "names joined by dots"),
        ("print parts.network.train()", "names joined by dots"),
        ("print checkpoint", "is a function"),
        ("print config.no_such", "has no attribute 'no_such'"),
        ("import os", "no such command"),
    ],
)
def test_a_wrong_command_is_answered_and_changes_nothing(request_of, text, reason):
    request = request_of(iterations=3)
    result, answers = steered(request, {1: (text,)})
    assert result.is_finished
    assert answers[text].startswith("error: ") and reason in answers[text]
    assert "\n" not in answers[text]
    assert "changes" not in load_checkpoint(request.folder / FINAL).state


def test_kill_leaves_the_checkpoint_before(request_of):
    request = request_of()
    result, _ = steered(request, {6: ("kill",)})
    assert not result.is_finished and not result.is_saved
    assert load_checkpoint(request.folder / LATEST).state["progress"]["iteration"] == 4
    assert not (request.folder / FINAL).exists()


def test_commands_of_another_process_are_obeyed_and_answered(request_of, monkeypatch):
    monkeypatch.setattr("autoseg.training.listener.LISTEN_SECONDS", 0.0)
    request = request_of(iterations=100_000)
    answers = []

    def steer():
        while not is_running(request.folder):
            time.sleep(0.05)
        time.sleep(0.1)  # what was sent to an earlier session is removed at the start
        mailbox = Mailbox(request.folder / MAILBOX)
        (request.folder / MAILBOX).mkdir(exist_ok=True)
        (request.folder / MAILBOX / "0.command.json").write_text("{ no json")
        for text in ("status", "setlr 0.001", "nonsense", "abort"):
            answers.append(mailbox.wait(mailbox.send(text), 60))

    thread = threading.Thread(target=steer)
    thread.start()
    result = train_fold(request)
    thread.join()
    assert not result.is_finished
    assert [answer.split()[0] for answer in answers] == ["iteration", "learning", "error:", "saving"]
    assert not is_running(request.folder)


def test_two_trainings_do_not_share_a_folder(request_of):
    request = request_of()

    def try_another(execute, is_over):
        with pytest.raises(Exception, match="another training runs here"):
            train_fold(request)

    train_fold(request, console=Console(iter([True] + 99 * [False]).__next__, try_another))


def test_averaged_weights_are_the_final_and_best_ones_and_the_latest_has_both(request_of):
    request = request_of("weight_average=0.9")
    train_fold(request)
    latest, final = load_checkpoint(request.folder / LATEST), load_checkpoint(request.folder / FINAL)
    average = latest.state["average"]["weights"]
    assert any(not torch.equal(latest.weights[name], average[name]) for name in average)
    assert all(torch.equal(final.weights[name], average[name]) for name in average)
    best = load_checkpoint(request.folder / BEST)
    assert all(torch.equal(best.weights[name], best.state["average"]["weights"][name]) for name in average)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [("weight_average=0.9",), ("optimizer=lbfgs",), ("optimizer=rprop",)], ids=str)
def test_a_run_with_average_or_closure_is_resumed_bit_by_bit(request_of, settings):
    whole, parted = request_of(*settings, name="whole"), request_of(*settings, name="parted")
    train_fold(whole)
    steps = iter(range(5))
    assert not train_fold(parted, should_stop=lambda: next(steps, None) is None).is_finished
    train_fold(parted, resume=True)
    one, other = (load_checkpoint(request.folder / FINAL).weights for request in (whole, parted))
    assert all(torch.equal(one[name], other[name]) for name in one)


class SometimesNan:
    """The usual loss, but NaN when it is computed the n-th time, n in ``bad``."""

    bad: frozenset[int] = frozenset()
    calls = 0

    def __init__(self, regions, batch_dice, all_reduce):
        from autoseg.nn.losses import LabelSetLoss

        self.loss = LabelSetLoss(regions, batch_dice, all_reduce)

    def __call__(self, *args):
        loss = self.loss(*args)
        if torch.is_grad_enabled() and args[0].shape[-1] != TRIAL_EDGE:
            type(self).calls += 1
            if self.calls in self.bad:
                return loss * float("nan")
        return loss


def train_with_bad_steps(request_of, monkeypatch, bad, *settings):
    monkeypatch.setattr(SometimesNan, "bad", frozenset(bad))
    monkeypatch.setattr(SometimesNan, "calls", 0)
    request = request_of("loss=test_steering:SometimesNan", "deep_supervision=false", *settings)
    return request, lambda: train_fold(request)


def test_a_bad_step_is_left_out_and_its_batch_is_kept(request_of, monkeypatch, caplog):
    request, train = train_with_bad_steps(request_of, monkeypatch, {2, 3})
    result = train()
    assert result.is_finished
    assert [record.skipped for record in result.progress.records] == [2, 0, 0]
    assert "the step is left out" in caplog.text
    kept = sorted(path.name for path in (request.folder / "bad_batches").iterdir())
    assert kept == [f"iteration_{n:07d}.{ending}" for n in (2, 3) for ending in ("json", "npz")]
    weights = load_checkpoint(request.folder / FINAL).weights
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_too_many_bad_steps_in_a_row_end_the_run(request_of, monkeypatch):
    request, train = train_with_bad_steps(request_of, monkeypatch, {5, 6, 7}, "max_bad_steps=2")
    with pytest.raises(TrainingError, match=r"nan near iteration 7, .* 2 steps before"):
        train()
    assert load_checkpoint(request.folder / LATEST).state["progress"]["iteration"] == 4


def test_bad_steps_that_are_not_in_a_row_do_not_end_the_run(request_of, monkeypatch):
    _, train = train_with_bad_steps(request_of, monkeypatch, {2, 4, 6, 8}, "max_bad_steps=1")
    assert train().is_finished


def test_a_line_all_of_whose_steps_were_left_out_has_no_training_loss(request_of, monkeypatch):
    request, train = train_with_bad_steps(request_of, monkeypatch, {2}, "history_freq=1")
    train()
    records = read_history(request.folder / "history.jsonl")
    assert [(record.train_loss is None, record.gradient_norm is None) for record in records[:3]] == [
        (False, False), (True, True), (False, False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before_h", "now_h", "is_due"), [(10.01, 14.9, False), (10.01, 15.01, True), (10.01, 16.0, True)]
)
def test_an_interval_that_was_changed_counts_from_then_on(request_of, before_h, now_h, is_due):
    """Ten checkpoints were kept, one an hour; then one in five hours is asked for."""
    request = request_of("param_save_h=5", "initial_prev_h=0", "prev_save_h=5")
    files = run_files(
        request, Progress(seconds=3600 * now_h, snapshot_seconds=3600 * before_h, preview_seconds=3600 * before_h)
    )
    files.write_what_is_due()
    assert [path.name for path in request.folder.glob("checkpoint_*h.pt")] == ["checkpoint_15h.pt"] * is_due
    assert (files.state.progress.preview_seconds == 3600 * now_h) is is_due


def run_files(request, progress):
    parts = build_parts(request, "float32")
    before = Before.of(None, None, request.dataset.name, {}, request.train_cases, request.val_cases)
    record = RunRecord.of(request, parts.device, None, None)
    return RunFiles(RunState(request, parts, progress, "float32", before, record, []))


def test_checkpoints_are_written_by_time_and_kept_for_good_by_the_hour(request_of):
    seconds = 1e-6
    request = request_of(
        f"checkpoint_every={seconds}", "history_freq=100", f"param_save_h={seconds}", f"initial_prev_h={seconds}",
        "prev_save_h=1000", iterations=4,
    )  # fmt: skip
    steps = iter(range(3))
    train_fold(request, should_stop=lambda: next(steps, None) is None)
    assert load_checkpoint(request.folder / PREVIOUS).state["progress"]["iteration"] >= 1
    assert list(request.folder.glob("checkpoint_*h.pt"))
    assert len(list((request.folder / "previews").glob("*.png"))) == 1


def test_a_dead_worker_is_replaced_once_with_the_same_weights(request_of, monkeypatch, caplog):
    whole, hurt = request_of(name="whole"), request_of(name="hurt")
    train_fold(whole)
    from autoseg.training import fold

    original = fold.training_batches

    def dying(at):
        deaths = iter(at)

        def batches(request, device, start):
            death = next(deaths, None)
            for index, batch in enumerate(original(request, device, start), start):
                if index == death:
                    raise WorkerError("patch loader: a worker process died, one of the cases ['toy_001'] was in work.")
                yield batch

        return batches

    monkeypatch.setattr(fold, "training_batches", dying([6]))
    train_fold(hurt)
    assert "toy_001" in caplog.text and "started again, from iteration 7" in caplog.text
    one, other = (load_checkpoint(request.folder / FINAL).weights for request in (whole, hurt))
    assert all(torch.equal(one[name], other[name]) for name in one)
    monkeypatch.setattr(fold, "training_batches", dying([5, 6]))
    with pytest.raises(WorkerError, match="toy_001"):
        train_fold(request_of(name="again"))


def test_a_training_that_waits_for_the_processor_says_so_once(request_of, monkeypatch, caplog):
    monkeypatch.setattr(speed, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(time, "process_time", lambda: 0.0)
    train_fold(request_of())
    assert caplog.text.count("waits for the processor more than it computes") == 1


def test_a_line_of_the_history_says_how_fast_and_how_steep_it_was(request_of):
    record = train_fold(request_of()).progress.records[-1]
    assert record.iterations_per_second > 0 and 0 <= record.data_wait <= 1
    assert record.gradient_norm > 0 and record.smooth_loss > 0 and record.memory_gb > 0


def test_the_first_batches_are_drawn_at_the_start(request_of):
    request = request_of("batch_picture=2", iterations=1)
    train_fold(request)
    assert (request.folder / "training_batches.png").stat().st_size > 0


def test_a_full_disk_in_a_save_keeps_the_checkpoint_before(request_of, monkeypatch):
    request = request_of()
    from autoseg.nn import checkpoint

    original, saves = torch.save, iter(range(100))

    def save(content, file):
        if next(saves) >= 3:  # best and latest of the first line, best of the second
            file.write(b"PK\x03\x04 half")
            raise OSError(errno.ENOSPC, "No space left on device")
        original(content, file)

    monkeypatch.setattr(checkpoint.torch, "save", save)
    with pytest.raises(StorageError, match="Existing files are unchanged"):
        train_fold(request)
    monkeypatch.undo()
    assert load_latest(request.folder).state["progress"]["iteration"] == 4
    assert train_fold(request, resume=True).is_finished


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(6))
def test_a_kill_at_any_moment_of_a_save_loses_nothing(request_of, toy_workspace, toy_folder, moment):
    """The process leaves without any clean-up before the n-th file of its second and third line is moved in place."""
    whole, hurt = request_of(name="whole"), request_of(name=f"hurt{moment}")
    train_fold(whole)
    script = f"""
import os, pathlib, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from dataclasses import replace
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.training.fold import build_parts, train_fold
from autoseg.report.history import read_history
from autoseg.training.prepare import prepare_fold
from autoseg.training.pretrained import Before
from autoseg.training.progress import Progress
from autoseg.training.run_config import RunOptions
import torch
torch.set_num_threads(1)
n = [0]
original = pathlib.Path.replace
def leaving(path, target):
    if "checkpoint" in str(target):
        n[0] += 1
        if n[0] == 3 + {moment}:
            os._exit(9)
    return original(path, target)
pathlib.Path.replace = leaving
run = RunOptions("0", iterations=10, settings={SETTINGS!r}, workers=0, device="cpu")
request = prepare_fold(Workspace(pathlib.Path({str(toy_workspace.root)!r})), Dataset.load({str(toy_folder)!r}), run)
train_fold(replace(request, folder=pathlib.Path({str(hurt.folder)!r})))
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, encoding="utf-8")
    assert done.returncode == 9, done.stderr
    assert train_fold(hurt, resume=True).is_finished
    one, other = (load_checkpoint(request.folder / FINAL).weights for request in (whole, hurt))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_patches_are_measured_beside_the_validation_ones(request_of):
    with_monitor = train_fold(request_of(name="with")).progress.records[-1]
    without = train_fold(request_of("monitor_batch_size=0", name="without")).progress.records[-1]
    assert with_monitor.monitor_loss > 0 and with_monitor.monitor_loss != with_monitor.validation_loss
    assert without.monitor_loss is None and without.monitor_dice is None
    assert without.train_loss == with_monitor.train_loss


def test_the_lines_go_to_tensorboard_if_it_is_there(request_of, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, name, value, iteration):
            written.append((name, value, iteration))

        def close(self):
            written.append(("closed", 0.0, 0))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    records = train_fold(request_of("tensorboard=true")).progress.records
    losses = [(value, iteration) for name, value, iteration in written if name == "train_loss"]
    assert losses == [(record.train_loss, record.iteration) for record in records]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'autoseg\[tensorboard\]'"):
        train_fold(request_of("tensorboard=true", name="other"))
