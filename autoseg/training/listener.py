"""Commands of other processes that wait to be obeyed by a run."""

from __future__ import annotations

import time
from pathlib import Path

from autoseg.training.commands import MAILBOX, Letter, Mailbox

LISTEN_SECONDS = 0.5
"""Time between two looks for commands of other processes."""


class Listener:
    """Source of the commands of a run.

    Parameters
    ----------
    folder
        Of the run.
    is_open
        Whether it listens; of several ranks only the first does.
    """

    def __init__(self, folder: Path, *, is_open: bool) -> None:
        self.mailbox = Mailbox(folder / MAILBOX)
        self.is_open = is_open
        self._letters: list[Letter] = []
        self._looked = time.monotonic()

    def end(self) -> None:
        """Answer what nobody will obey any more."""
        if self.is_open:
            for letter in (*self._letters, *self.mailbox.receive()):
                self.mailbox.answer(letter.key, "error: the training has ended.")
            self._letters.clear()

    @property
    def has_letters(self) -> bool:
        """Whether commands of other processes wait; looks for them from time to time."""
        now = time.monotonic()
        if self.is_open and now - self._looked >= LISTEN_SECONDS:
            self._looked = now
            self._letters.extend(self.mailbox.receive())
        return bool(self._letters)

    def take(self) -> Letter | None:
        """Take the oldest command that waits; None if there is none."""
        return self._letters.pop(0) if self._letters else None
