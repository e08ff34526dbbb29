"""One training under way: its steps, and what they amount to."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import torch

from autoseg.core.errors import TrainingError, WorkerError
from autoseg.core.means import mean_known
from autoseg.report.history import EpochRecord
from autoseg.sampling.batch import Batch
from autoseg.training.bad_steps import FOLDER, dump_bad_batch, is_bad
from autoseg.training.clock import Clock
from autoseg.training.listener import Listener
from autoseg.training.metrics import smooth
from autoseg.training.progress import Progress, smoothed
from autoseg.training.run_files import RunFiles
from autoseg.training.run_state import RunState
from autoseg.training.speed import Stopwatch, memory_in_use_gb
from autoseg.training.trainer import StepResult, check_weights, training_step, validate

log = logging.getLogger(__name__)

READ_EVERY = 10
"""Steps between two readings of the loss, each of which makes a GPU wait."""
READ_SECONDS = 10.0
"""Time after which the loss is read, however few steps that were, so that slow machines report, too."""

OnSteps = Callable[[Progress, float, float], None]


class Run:
    """A training under way, changed by each step.

    Of several ranks each has one; all take the same steps.

    Parameters
    ----------
    state
        What its checkpoints hold; changed in place.
    """

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.clock = Clock(state)
        self.files = RunFiles(state)
        self.listener = Listener(state.request.folder, is_open=state.request.ranks.is_first)
        self.iteration = state.progress.iteration
        """Steps done. The progress of the state follows whenever losses are read."""
        self.ending: Literal["", "abort", "kill"] = ""
        """Command that ends the run."""
        self.rate = 0.0
        """Learning rate of the last step."""
        self._watch = Stopwatch(state.parts.device)
        self._batches: Iterator[Batch] = iter(())
        self._pending: list[tuple[int, StepResult]] = []
        self._may_restart = True
        self._has_no_time = False

    def begin(self) -> None:
        """Write the files of the start, and let batches be built from where the run goes on."""
        limit = self.state.config.max_runtime
        self.files.begin()
        self._has_no_time = limit is not None and self.state.progress.seconds >= limit
        if self._has_no_time:
            log.warning(
                "the run has trained for %.0f s, and max_runtime is %g s: nothing is left to do. Give it more with "
                "--max-runtime",
                self.state.progress.seconds, limit or 0.0,
            )  # fmt: skip
            return
        self._batches = self.state.parts.training_batches(self.iteration)
        self.clock.take()

    @property
    def goes_on(self) -> bool:
        """Whether there is another step to do. Several ranks leave together, when they have agreed to stop."""
        if self._has_no_time or self.iteration >= self.state.config.iterations:
            return False
        return self.state.parts.ranks.size > 1 or not self.ending

    @property
    def is_line_due(self) -> bool:
        """Whether the last step is followed by a line of history.jsonl."""
        records = self.state.progress.records
        steps = self.iteration - (records[-1].iteration if records else 0)
        return steps >= self.state.config.steps_per_line or self.iteration == self.state.config.iterations

    @property
    def is_reading_due(self) -> bool:
        """Whether the losses of the last steps are read now."""
        is_late = self.clock.since >= READ_SECONDS
        return len(self._pending) >= READ_EVERY or is_late or self.files.is_checkpoint_due or self.listener.has_letters

    def step(self) -> None:
        """Do one optimiser step."""
        self._watch.begin_step()
        batch = self._next_batch()
        self._watch.begin_computing()
        parts = self.state.parts
        self.rate = parts.optimization.set_learning_rate(self.iteration, self.clock.agree_on_share(self.iteration))
        result = training_step(parts, batch, self.iteration, self.state.config.optimizer.gradient_clip)
        self._pending.append((self.iteration, result))
        self.iteration += 1
        self._watch.end_step()

    def read_losses(self, on_steps: OnSteps) -> None:
        """Bring the progress up to the last step, and report it.

        Raises ``TrainingError`` if more steps in a row than allowed had a loss or gradient that is not finite.
        """
        progress, loss = self.state.progress, float("nan")
        values = torch.stack([torch.stack(result) for _, result in self._pending]).tolist() if self._pending else []
        for (iteration, _), (loss, norm) in zip(self._pending, values, strict=True):
            if is_bad(loss, norm, is_scaled=self.state.parts.scaler.is_enabled()):
                progress = replace(progress, bad_steps=progress.bad_steps + 1, epoch_skipped=progress.epoch_skipped + 1)
                self._leave_out(iteration, loss, norm, progress.bad_steps)
                continue
            progress = replace(
                progress,
                bad_steps=0,
                epoch_loss=progress.epoch_loss + loss,  # in order, so that a resumed sum is the same sum
                epoch_norm=progress.epoch_norm + norm,
                smooth_loss=smoothed(progress.smooth_loss, loss, iteration),
            )
        self._pending.clear()
        passed, now = self.clock.take(), self.iteration
        _, waited = self._watch.take()
        self.state.progress = replace(
            progress,
            iteration=now,
            seconds=progress.seconds + passed,
            epoch_seconds=progress.epoch_seconds + passed,
            epoch_waited=progress.epoch_waited + waited,
        )
        on_steps(self.state.progress, loss, self.rate)

    def end_line(self) -> None:
        """Validate, and add a line to the history; the best weights so far are kept."""
        check_weights(self.state.parts.network, self.iteration)
        with self.state.averaged():
            parts = self.state.parts
            validated, monitored = (
                validate(parts, batches()) for batches in (parts.validation_batches, parts.monitor_batches)
            )
        passed = self.clock.take()
        record = _record(self.state, validated, monitored, self.rate, passed)
        progress, smoothed = self.state.progress, record.dice_smooth
        is_best = smoothed is not None and (progress.best is None or smoothed > progress.best)
        self.state.progress = Progress(
            iteration=progress.iteration,
            records=(*progress.records, record),
            best=smoothed if is_best else progress.best,
            seconds=progress.seconds + passed,
            smooth_loss=progress.smooth_loss,
            bad_steps=progress.bad_steps,
            snapshot_seconds=progress.snapshot_seconds,
            preview_seconds=progress.preview_seconds,
        )
        self._may_restart = True
        self.files.end_line(is_best=is_best)

    def finish(self, *, is_stopped: bool) -> bool:
        """Write the last checkpoints; return whether the run is finished, by its length or its time."""
        ranks = self.state.parts.ranks
        is_late = ranks.any(self.clock.is_out)
        is_finished = self.iteration >= self.state.config.iterations or (is_late and not is_stopped)
        self.files.finish(is_finished=is_finished, saves=self.ending != "kill")
        ranks.any(False)  # waits until the files are there
        self.listener.end()
        return is_finished

    def stop_workers(self) -> None:
        """Give up the batches that are built ahead, and with them the processes that build them.

        A traceback that the console showed keeps this run until the interpreter ends, which would then wait for them.
        """
        self._batches = iter(())

    def _next_batch(self) -> Batch:
        """Return the batch of the next step. A dead worker is replaced once between two lines of the history."""
        try:
            return next(self._batches)
        except WorkerError as error:
            if not self._may_restart:
                raise
            self._may_restart = False
            log.warning("%s The workers are started again, from iteration %d", error, self.iteration + 1)
            self._batches = self.state.parts.training_batches(self.iteration)
            return next(self._batches)

    def _leave_out(self, iteration: int, loss: float, norm: float, in_a_row: int) -> None:
        """Keep the batch of a step that was left out; raise ``TrainingError`` if there were too many in a row."""
        allowed = self.state.config.monitoring.max_bad_steps
        path = dump_bad_batch(self.state.request, iteration, loss, norm)
        wrong = f"the gradient is {norm}" if loss == loss and abs(loss) != float("inf") else f"the loss is {loss}"
        if in_a_row > allowed:
            raise TrainingError(
                f"training: {wrong} near iteration {iteration + 1}, expected a finite number; {allowed} steps before "
                f"it were left out. Their batches are in {self.state.request.folder / FOLDER}"
            )
        log.warning("%s in iteration %d: the step is left out%s", wrong, iteration + 1, f", see {path}" if path else "")


Measured = tuple[float | None, list[float | None]]
"""Loss and Dice per head."""


def _record(state: RunState, validated: Measured, monitored: Measured, rate: float, seconds: float) -> EpochRecord:
    """Return the line of the steps since the last one; ``seconds`` is what the measuring took."""
    (validation_loss, dice), parts, progress = validated, state.parts, state.progress
    labels = parts.objective.labels
    mean = mean_known([dice[head] for head in labels.foreground_heads])
    past = progress.records[-1] if progress.records else None
    steps = progress.iteration - (past.iteration if past else 0)
    counted = steps - progress.epoch_skipped
    return EpochRecord(
        epoch=len(progress.records) + 1,
        iteration=progress.iteration,
        train_loss=progress.epoch_loss / counted if counted else None,
        validation_loss=validation_loss,
        score=parts.objective.score_name,
        dice=mean,
        dice_per_head={labels.heads[head].name: dice[head] for head in labels.foreground_heads},
        scored_on="dense" if parts.is_dense else "annotated voxels",
        seen_validation_cases=parts.seen_validation_cases,
        dice_smooth=smooth(past.dice_smooth if past else None, mean),
        learning_rate=rate,
        seconds=progress.epoch_seconds + seconds,
        smooth_loss=progress.smooth_loss,
        gradient_norm=progress.epoch_norm / counted if counted and math.isfinite(progress.epoch_norm) else None,
        monitor_loss=monitored[0],
        monitor_dice=mean_known([monitored[1][head] for head in labels.foreground_heads]),
        skipped=progress.epoch_skipped,
        iterations_per_second=steps / max(progress.epoch_seconds, 1e-9),
        data_wait=min(1.0, progress.epoch_waited / max(progress.epoch_seconds, 1e-9)),
        memory_gb=memory_in_use_gb(parts.device),
    )
