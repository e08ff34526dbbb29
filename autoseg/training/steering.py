"""Commands that a run obeys between two steps, from its console or from another process."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from autoseg.core.atomic import write_text
from autoseg.core.config_levels import Level, assignment_level, leaf_keys, matching_keys, resolve_levels
from autoseg.core.errors import AutosegError, ConfigError
from autoseg.core.means import mean_known
from autoseg.nn.checkpoint import load_checkpoint
from autoseg.training.case_preview import preview_names
from autoseg.training.commands import COMMANDS, parse_command
from autoseg.training.config import TrainingConfig
from autoseg.training.optim import build_optimization, optimizer_name, optimizer_settings
from autoseg.training.resuming import STEERABLE
from autoseg.training.run import Run
from autoseg.training.run_checkpoints import BEST, FINAL, LATEST, PREVIOUS
from autoseg.training.run_state import RunState, load_weights
from autoseg.training.schedules import SCHEDULES
from autoseg.training.trainer import Console, validate

log = logging.getLogger(__name__)

LONGEST = 400
"""Characters of a printed attribute."""
FOR_SEVERAL = ("q", "status", "abort", "save", "params", "batch", "print", "help")
"""Commands that a run of several ranks obeys: those that change nothing on which the ranks must agree."""
PARAMETERS = "params.txt"


def take_letters(run: Run) -> None:
    """Obey the commands of other processes that wait, and answer them."""
    while (letter := run.listener.take()) is not None:
        run.listener.mailbox.answer(letter.key, execute(run, letter.text))


def talk(run: Run, console: Console) -> None:
    """Let the user give commands in a console. Its time is no training time."""
    is_left = False

    def obey(text: str) -> str:
        nonlocal is_left
        is_left = text.strip() == "q"
        return execute(run, text, console)

    console.talk(obey, lambda: is_left or bool(run.ending))
    run.clock.take()


def execute(run: Run, text: str, console: Console | None = None) -> str:
    """Obey one command line; return the answer. What is wrong with it is the answer, too.

    The answer is one line, except that of ``python``, which only a ``console`` obeys.
    """
    try:
        command = parse_command(text)
        if run.state.parts.ranks.size > 1 and command.name not in FOR_SEVERAL:
            raise ConfigError(
                f"{command.name}: this run has several processes, which obey {', '.join(FOR_SEVERAL)}. For others, "
                "abort it and go on with --resume --set KEY=VALUE."
            )
        if command.name == "python":
            answer = _python(run, command.argument, console)
        else:
            answer = _ACTIONS[command.name](run, command.argument)
    except Exception as error:  # whatever a command runs into, it must not end the training
        log.debug("where that was found", exc_info=True)
        reason = str(error) if isinstance(error, AutosegError) else f"{type(error).__name__}: {error}"
        return "error: " + " ".join(reason.split())
    if command.name not in ("q", "status", "help", "print"):
        log.info("iteration %d: %s: %s", run.iteration, text.strip(), answer)
    return answer


def _go_on(run: Run, argument: str) -> str:
    return "going on"


def _status(run: Run, argument: str) -> str:
    progress, config = run.state.progress, run.state.config
    record = progress.records[-1] if progress.records else None
    score = f"{run.state.parts.objective.score_name} {_shown(None if record is None else record.dice, '.3f')}"
    steps = progress.iteration - (record.iteration if record else 0)
    rate = steps / progress.epoch_seconds if steps and progress.epoch_seconds else None
    if not rate and record is not None:
        rate = record.iterations_per_second
    left = None if not rate else (config.iterations - run.iteration) / rate
    if config.max_runtime is not None:
        left = min(config.max_runtime - run.clock.seconds, left if left is not None else config.max_runtime)
    return (
        f"iteration {run.iteration} of {config.iterations}, loss {_shown(progress.smooth_loss, '.4f')}, "
        f"{score}, learning rate {run.rate:.3g}, "
        f"{_shown(rate, '.2f')} iterations per second, {_shown(left and max(left, 0) / 60, '.1f')} min left"
    )


def _abort(run: Run, argument: str) -> str:
    run.ending = "abort"
    return f"saving and ending after iteration {run.iteration}"


def _kill(run: Run, argument: str) -> str:
    run.ending = "kill"
    return f"ending after iteration {run.iteration} without saving"


def _save(run: Run, argument: str) -> str:
    name = _file_name(argument or LATEST)
    if argument and name in (PREVIOUS, BEST, FINAL):
        raise ConfigError(f"save {argument}: the training writes this file itself. Choose another name.")
    run.files.save(name)
    return f"saved {name}"


def _load(run: Run, argument: str) -> str:
    name = _file_name(argument)
    request = run.state.request
    checkpoint = load_checkpoint(request.folder / name)
    is_of_run = (checkpoint.plan, checkpoint.configuration) == (request.plan, request.configuration.name)
    if not is_of_run or "optimizer" not in checkpoint.state:
        raise ConfigError(f"load {argument}: this is no checkpoint of this run. Choose one of its folder.")
    before, now = TrainingConfig.model_validate(dict(checkpoint.training)), run.state.config
    its, own = (optimizer_name(config.optimizer, config.iterations) for config in (before, now))
    if its != own:  # its state means nothing to the present one
        raise ConfigError(
            f"load {argument}: found the state of the optimiser {its}, expected {own}. Type optimizer {its}, then load."
        )
    load_weights(run.state.parts, checkpoint)
    _note(run.state, {"load": [None, name]})
    run.files.save(LATEST)
    return f"weights and optimiser are those of {name}, iteration {checkpoint.state['progress']['iteration']}"


def _set_learning_rate(run: Run, argument: str) -> str:
    rate, optimization = _number("setlr", argument, above=0), run.state.parts.optimization
    now = optimization.learning_rate_at(run.iteration, run.clock.share)
    own, config = optimization.settings, run.state.config.optimizer
    if config.table and run.iteration >= config.table[0][0]:
        kept = tuple(entry for entry in config.table if entry[0] != run.iteration)
        changed = config.model_copy(update={"table": tuple(sorted((*kept, (run.iteration, rate))))})
    elif now > 0:
        changed = config.model_copy(update={"learning_rate": own.learning_rate * rate / now})
    else:
        raise ConfigError(f"setlr {argument}: the schedule {own.schedule} has ended ({', '.join(SCHEDULES)} exist).")
    _configure(run, run.state.config.model_copy(update={"optimizer": changed}))
    return f"learning rate {rate:g} from iteration {run.iteration + 1}, was {now:.3g}"


def _set_momentum(run: Run, argument: str) -> str:
    return _set(run, f"optimizer.momentum {argument}")


def _set_history(run: Run, argument: str) -> str:
    return _set(run, f"monitoring.history_freq {argument}")


def _optimizer(run: Run, argument: str) -> str:
    own = {"name": argument, "learning_rate": None, "momentum": None, "weight_decay": None}
    config = run.state.config.optimizer.model_copy(update=own)
    settings = optimizer_settings(config, run.state.config.iterations)
    if settings.needs_closure and run.state.parts.scaler.is_enabled():
        raise ConfigError(f"optimizer {argument}: it computes a step several times, which float16 cannot.")
    parts = run.state.parts
    built = build_optimization(parts.network, config, run.state.config.iterations)  # may fail: nothing has changed yet
    run.state.parts = replace(parts, optimization=built)
    _configure(run, run.state.config.model_copy(update={"optimizer": config}))
    return f"{argument}, its state new; learning rate {built.learning_rate_at(run.iteration, run.clock.share):.3g}"


def _set(run: Run, argument: str) -> str:
    written, _, text = argument.partition(" ")
    matches = matching_keys(written, leaf_keys(TrainingConfig))
    if len(matches) != 1 or matches[0] not in STEERABLE or not text.strip():
        raise ConfigError(f"set {argument}: expected KEY VALUE, with a key of {', '.join(STEERABLE)}.")
    key = matches[0]
    level = assignment_level([f"{key}={text.strip()}"], TrainingConfig, "set")
    before = run.state.config.flat()[key]
    config = _resolved(run.state.config, level)
    preview_names(replace(run.state.request, config=config))  # a misspelt case is said now, not with the next preview
    _configure(run, config)
    if key in ("optimizer.momentum", "optimizer.weight_decay"):
        run.state.parts.optimization.apply_settings()
    return f"{key} is {config.flat()[key]}, was {before}"


def _parameters(run: Run, argument: str) -> str:
    lines, largest = ["name\tnumber\tmean\tdeviation\tlargest"], (0.0, "none")
    for name, weights in run.state.parts.network.named_parameters():
        values = weights.detach().float()
        most = float(values.abs().max())
        largest = max(largest, (most, name))
        deviation = float(values.std(correction=0))
        lines.append(f"{name}\t{values.numel()}\t{float(values.mean()):.4g}\t{deviation:.4g}\t{most:.4g}")
    write_text(run.state.request.folder / PARAMETERS, "\n".join(lines) + "\n")
    n = sum(weights.numel() for weights in run.state.parts.network.parameters())
    return f"{n} weights in {len(lines) - 1} tensors, the largest {largest[0]:.3g} in {largest[1]}; all in {PARAMETERS}"


def _batch(run: Run, argument: str) -> str:
    return f"the next batch is in {run.files.draw_batch(run.iteration)}"


def _evaluate(run: Run, argument: str) -> str:
    with run.state.averaged():
        loss, dice = validate(run.state.parts, run.state.parts.validation_batches())
    labels = run.state.parts.objective.labels
    each = ", ".join(f"{labels.heads[head].name} {_shown(dice[head], '.3f')}" for head in labels.foreground_heads)
    mean = mean_known([dice[head] for head in labels.foreground_heads])
    return (
        f"validation loss {_shown(loss, '.4f')}, {run.state.parts.objective.score_name} {_shown(mean, '.3f')} ({each})"
    )


def _preview(run: Run, argument: str) -> str:
    names = run.files.preview()
    return f"drawn in previews: {', '.join(names)}" if names else "no case could be predicted; see the messages"


def _print(run: Run, argument: str) -> str:
    if not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*", argument):
        raise ConfigError(f"print {argument}: expected names joined by dots, such as config.optimizer.")
    value: Any = run.state
    for name in argument.split("."):
        if not hasattr(value, name):
            raise ConfigError(f"print {argument}: {type(value).__name__} has no attribute {name!r}.")
        value = getattr(value, name)
    if callable(value) and not isinstance(value, nn.Module):
        raise ConfigError(f"print {argument}: this is a function, and commands call none.")
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _python(run: Run, argument: str, console: Console | None) -> str:
    if console is None or console.run_code is None:
        raise ConfigError(
            "python: no command executes code here. Start the training on a terminal with --console-python, and type "
            "it in the console that Ctrl-C opens."
        )
    _note(run.state, {"python": [None, argument]})  # before it may fail half-way
    return console.run_code(argument, {"run": run})


def _help(run: Run, argument: str) -> str:
    return ", ".join(f"{name} {usage.argument}".rstrip() for name, usage in COMMANDS.items())


_ACTIONS: dict[str, Callable[[Run, str], str]] = {
    "q": _go_on, "status": _status, "abort": _abort, "kill": _kill, "save": _save, "load": _load,
    "setlr": _set_learning_rate, "setmom": _set_momentum, "sethist": _set_history, "optimizer": _optimizer,
    "set": _set, "params": _parameters, "batch": _batch, "eval": _evaluate, "preview": _preview, "print": _print,
    "help": _help,
}  # fmt: skip


def _configure(run: Run, config: TrainingConfig) -> None:
    """Let the run have other settings: in training.json at once, and in the checkpoints from the next one on."""
    state = run.state
    before, now = state.config.flat(), config.flat()
    changed = {key: [before[key], now[key]] for key in now if now[key] != before[key]}
    state.request = replace(state.request, config=config)
    optimization = state.parts.optimization
    optimization.config = config.optimizer
    optimization.settings = optimizer_settings(config.optimizer, config.iterations)
    if changed:
        _note(state, changed)


def _note(state: RunState, changed: dict[str, Any]) -> None:
    state.changes.append({"iteration": state.progress.iteration, **changed})
    state.write_settings()


def _resolved(config: TrainingConfig, level: Level) -> TrainingConfig:
    """Return the settings with those of ``level``; raise ``ConfigError`` for a value that does not fit."""
    from_now = Level("now", config.flat())
    return resolve_levels(TrainingConfig, [from_now, level]).config


def _number(command: str, text: str, *, above: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = above
    if not above < value < float("inf"):
        raise ConfigError(f"{command} {text}: expected a number above {above:g}.")
    return value


def _file_name(text: str) -> str:
    """Return the name of a checkpoint in the folder of the run, with its ending."""
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise ConfigError(f"{text!r}: expected a file name without a folder, such as checkpoint_before_setlr.pt.")
    return text if text.endswith(".pt") else f"{text}.pt"


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
