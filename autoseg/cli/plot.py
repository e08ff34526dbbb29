"""``autoseg_plot RUN``: draw the curves of a run again from its history."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli.common import check_picture, run


def plot(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a fold: .../NAME__CONFIGURATION/fold_0.", file_okay=False)
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="PNG file (default: progress.png in RUN).", dir_okay=False)
    ] = None,
) -> None:
    """Draw losses, Dice, learning rate and speed of the training in RUN from its history.jsonl."""
    check_picture(output)
    from autoseg.report.history import HISTORY, draw_history, read_history
    from autoseg.training.run_files import CURVES

    path = output or folder / CURVES
    draw_history(path, read_history(folder / HISTORY))
    print(path)


def main() -> None:
    """Run the command on the process's arguments."""
    run(plot)


if __name__ == "__main__":
    main()
