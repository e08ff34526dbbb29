"""The training loop: step, read losses, write, obey, stop."""

from __future__ import annotations

from autoseg.training.run import Run
from autoseg.training.steering import take_letters, talk
from autoseg.training.trainer import TURN, Hooks


def train(run: Run, hooks: Hooks) -> None:
    """Train until all iterations are done, the time is up, or somebody ends the run; ``run`` is then where it came to.

    Raises ``TrainingError`` when loss or weights are no longer finite; the latest checkpoint is then still good.
    """
    run.begin()
    while run.goes_on:
        run.step()
        console = hooks.console if hooks.console is not None and hooks.console.is_wanted() else None
        stop = _stops(run, hooks)
        if not (run.is_line_due or run.is_reading_due or console or stop):
            continue
        run.read_losses(hooks.on_steps)
        if run.is_line_due:
            run.end_line()
        run.files.write_what_is_due()
        take_letters(run)
        if console is not None:
            talk(run, console)
        if stop:
            break


def _stops(run: Run, hooks: Hooks) -> bool:
    """Whether all ranks stop now. Several ask each other only every few steps."""
    ranks = run.state.parts.ranks
    if ranks.size == 1:
        return hooks.should_stop() or run.clock.is_out
    is_turn = run.is_line_due or run.iteration % TURN == 0
    return is_turn and ranks.any(hooks.should_stop() or run.clock.is_out or bool(run.ending))
