"""Files of a run: checkpoints, history, pictures. Of several ranks only the first writes."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace

from autoseg.core.errors import AutosegError
from autoseg.nn.checkpoint import save_checkpoint
from autoseg.report.history import HISTORY, draw_history, write_history
from autoseg.training.batches import batch_size
from autoseg.training.case_preview import draw_previews
from autoseg.training.preview_picture import draw_patches
from autoseg.training.run_checkpoints import BEST, FINAL, LATEST, save_latest, snapshot_name
from autoseg.training.run_state import RunState
from autoseg.training.tensorboard import check_tensorboard, write_tensorboard
from autoseg.training.trainer import check_weights

log = logging.getLogger(__name__)

CURVES, PICTURE = "progress.png", "training_batches.png"
DRAWING_SHARE = 0.02
"""Largest share of the time of a run that goes into its curves; drawn at each line they took a third of short runs."""


class RunFiles:
    """Files of a run, written when they are due."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.is_writer = state.request.ranks.is_first
        self._saved = time.monotonic()
        self._n_drawn = 0
        """Lines of the history that the curves show; 0 before this process drew any."""
        self._may_draw = 0.0
        """When the curves may be drawn again, on the clock of ``time.monotonic``."""
        self._latest: tuple[int, int] | None = None
        """Content of the latest checkpoint that was written, see :attr:`_now`."""

    def begin(self) -> None:
        """Write the settings, the history that belongs to the checkpoint, and the picture of the first batches."""
        if not self.is_writer:
            return
        state, folder = self.state, self.state.request.folder
        if state.config.monitoring.tensorboard:
            check_tensorboard()
        if state.progress.records:  # a kill may have come between checkpoint and history
            write_history(folder / HISTORY, state.progress.records)
        state.write_settings()
        length = state.config.iterations * batch_size(state.request)
        number = min(state.config.monitoring.batch_picture, length)
        if number and not (folder / PICTURE).exists():
            draw_patches(replace(state.request, workers=0), number, 0, folder / PICTURE)

    def save(self, name: str) -> None:
        """Write a checkpoint; ``best`` and ``final`` have the averaged weights, others those of the last step."""
        if not self.is_writer:
            return
        if name == LATEST:
            save_latest(self.state.request.folder, self.state.checkpoint())
            self._saved, self._latest = time.monotonic(), self._now
        else:
            checkpoint = self.state.checkpoint(averaged=name in (BEST, FINAL))
            save_checkpoint(self.state.request.folder / name, checkpoint)

    def end_line(self, *, is_best: bool) -> None:
        """Write checkpoints and history after a line was added; draw the curves if they were not drawn just before."""
        if not self.is_writer:
            return
        if is_best:  # before the latest: a kill between the two repeats the steps of the line, and neither is lost
            self.save(BEST)
        self.save(LATEST)
        folder, records = self.state.request.folder, self.state.progress.records
        write_history(folder / HISTORY, records)
        if time.monotonic() >= self._may_draw:
            self._draw_curves()
        if self.state.config.monitoring.tensorboard:
            write_tensorboard(folder, records[-1])

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether so much time has passed that the latest checkpoint is written outside the lines of the history."""
        return self.is_writer and time.monotonic() - self._saved >= 60 * self.state.config.monitoring.checkpoint_every

    def write_what_is_due(self) -> None:
        """Write what time asks for: the latest checkpoint, one that is kept for good, and previews.

        Not while steps are left out, since the weights are then in doubt.
        """
        if not self.is_writer or self.state.progress.bad_steps:
            return
        state, monitoring = self.state, self.state.config.monitoring
        if self.is_checkpoint_due:
            check_weights(state.parts.network, state.progress.iteration)
            self.save(LATEST)
        before, now = state.progress, state.progress.seconds
        every, first = monitoring.param_save_h, monitoring.initial_prev_h
        if every is not None and _turn(now, every) > _turn(before.snapshot_seconds, every):
            state.progress = replace(state.progress, snapshot_seconds=now)
            self.save(snapshot_name(_turn(now, every) * every))
        if first is None or now < 3600 * first:
            return
        last, pause = before.preview_seconds, monitoring.prev_save_h
        if last is None or _turn(now, pause, first) > _turn(last, pause, first):
            state.progress = replace(state.progress, preview_seconds=now)
            self.preview()

    def preview(self) -> list[str]:
        """Draw the preview cases; return the names of the pictures. What goes wrong does not end the run."""
        state = self.state
        try:
            with state.averaged():
                return [path.name for path in draw_previews(state.request, state.parts, state.progress.seconds)]
        except AutosegError as error:
            log.warning("preview: %s", error)
            return []

    def draw_batch(self, iteration: int) -> str:
        """Draw the patches of the batch of ``iteration``; return the name of the picture."""
        request = replace(self.state.request, workers=0)
        path = request.folder / f"batch_{iteration + 1:07d}.png"
        draw_patches(request, batch_size(request), iteration, path)
        return path.name

    def finish(self, *, is_finished: bool, saves: bool) -> None:
        """Write the last checkpoints, the latest only if it would change, and draw what the curves lack."""
        if saves and self._latest != self._now:
            check_weights(self.state.parts.network, self.state.progress.iteration)
            self.save(LATEST)
        if is_finished:
            self.save(FINAL)
        if self.is_writer and self._n_drawn < len(self.state.progress.records):
            self._draw_curves()

    def _draw_curves(self) -> None:
        """Draw progress.png, and reckon when its next drawing keeps to ``DRAWING_SHARE``."""
        started, records = time.monotonic(), self.state.progress.records
        draw_history(self.state.request.folder / CURVES, records)
        self._n_drawn = len(records)
        self._may_draw = time.monotonic() + (time.monotonic() - started) / DRAWING_SHARE

    @property
    def _now(self) -> tuple[int, int]:
        """Steps done, and number of changes of settings: the latest checkpoint is to hold both."""
        return self.state.progress.iteration, len(self.state.changes)


def _turn(seconds: float, every_h: float, first_h: float = 0.0) -> int:
    """Return the number of whole intervals of ``every_h`` hours between ``first_h`` and a training time."""
    return math.floor((seconds / 3600 - first_h) / every_h)
