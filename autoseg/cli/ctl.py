"""``autoseg_ctl RUN COMMAND``: steer a training that runs elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli.common import IncompleteError, run
from autoseg.core.errors import ConfigError

LOOK_S = 5.0
"""Seconds between two looks whether the training still runs."""


def ctl(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a fold: .../NAME__CONFIGURATION/fold_0.", file_okay=False)
    ],
    command: Annotated[str, typer.Argument(help='In quotes, such as "setlr 0.001"; help lists all commands.')],
    wait: Annotated[float, typer.Option(help="Seconds to wait for the answer.", min=0)] = 300.0,
) -> None:
    """Give the training in RUN a command, which it obeys after its present step, and print its answer."""
    from autoseg.training.commands import MAILBOX, Mailbox, help_text, parse_command
    from autoseg.training.run_lock import is_running

    if parse_command(command).name == "help":
        print(help_text())
        return
    if not is_running(folder):
        raise ConfigError(f"{folder}: found no training that runs here, expected one. Give the folder of its fold.")
    mailbox = Mailbox(folder / MAILBOX)
    key, end = mailbox.send(command), time.monotonic() + wait
    while (answer := mailbox.wait(key, min(LOOK_S, max(0.0, end - time.monotonic())))) is None:
        has_ended = not is_running(folder)
        if not has_ended and time.monotonic() < end:
            continue
        why = "the training has ended" if has_ended else "it may be in a long step"
        what = "was taken back" if mailbox.take_back(key) else "is no longer waiting: it was, or is being, obeyed"
        raise IncompleteError(f"no answer within {wait:g} s; {why}. The command {what}")
    if answer.startswith("error: "):
        raise ConfigError(answer.removeprefix("error: "))
    print(answer)


def main() -> None:
    """Run the command on the process's arguments."""
    run(ctl)


if __name__ == "__main__":
    main()
