"""``autoseg_ctl RUN COMMAND``: steer a training that runs elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli.common import IncompleteError, run
from autoseg.core.errors import ConfigError


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
    answer = mailbox.wait(mailbox.send(command), wait)
    if answer is None:
        raise IncompleteError(f"no answer within {wait:g} s; the command was taken back. It may be in a long step")
    if answer.startswith("error: "):
        raise ConfigError(answer.removeprefix("error: "))
    print(answer)


def main() -> None:
    """Run the command on the process's arguments."""
    run(ctl)


if __name__ == "__main__":
    main()
