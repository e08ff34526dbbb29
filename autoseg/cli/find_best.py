"""``autoseg_find_best``: the best of the trained models and their pairs, and the commands to use it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli import common

if TYPE_CHECKING:
    from pathlib import Path

    from autoseg.assist.find_best import FindBest

log = logging.getLogger("autoseg.find_best")

_WORD, _FOLD = r"[23]d\w*", r"\d+|all"


def find_best(
    dataset: common.DatasetArgument,
    *,
    configurations: Annotated[
        list[str] | None,
        typer.Option("-c", "--configuration", help="Configurations to compare (default: all)."),
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--name", help="Name of trainings to compare; may be repeated (default: all).")
    ] = None,
    folds: Annotated[
        list[str] | None, typer.Option("-f", "--folds", help="Use only these folds (default: all of the split).")
    ] = None,
    pairs: Annotated[bool, typer.Option("--pairs/--no-pairs", help="Also predict and compare pairs of models.")] = True,
    postprocessing: Annotated[
        bool, typer.Option("--postprocessing/--no-postprocessing", help="Also decide on post-processing.")
    ] = True,
    device: common.DeviceOption = "auto",
    workers: common.WorkersOption = None,
    root: common.RootOption = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Compare the trained models of DATASET on cross-validation, and write the commands for new images.

    Every case counts as the fold predicted it that left it out. The best single model is chosen, unless a pair is
    clearly better. Then post-processing is decided on the predictions of the chosen model, as far as the references
    decide every voxel. Written to ROOT/results/DATASET: find_best.json, postprocessing.json, predict_command.txt.
    """
    common.set_up_logging(verbose=verbose, quiet=quiet)
    space = common.workspace(root)
    data = common.load_dataset(space, dataset)
    from autoseg.assist.find_best import FindBestOptions, find_best  # imports torch

    options = FindBestOptions(
        tuple(configurations or ()), tuple(names or ()), tuple(folds or ()), pairs, postprocessing, device,
        common.n_workers(workers),
    )  # fmt: skip
    if data.labels.instances is not None:
        log.warning(
            "objects: models are compared by AP50, without pairs and post-processing, which are of classes and regions"
        )
    result = find_best(space, data, options, common.stages(quiet=quiet))
    _show(result, space.results(data.name), as_json=json_, quiet=quiet)


def main() -> None:
    """Entry point of the command."""
    common.run(find_best, lists={"-c": _WORD, "--configuration": _WORD, "-f": _FOLD, "--folds": _FOLD})


def _show(result: FindBest, folder: Path, *, as_json: bool, quiet: bool) -> None:
    """Log the choice; print tables and commands, or all as JSON."""
    from autoseg.cli.find_best_table import print_tables
    from autoseg.evaluation.postprocessing import step_text

    choice = result.choice
    if choice.scored_on != "dense":
        log.warning(
            "%s is on annotated voxels: what is predicted elsewhere had no effect on the ranking", choice.measure
        )
    if as_json:
        common.print_json(result.model_dump(mode="json"))
    elif not quiet:
        print_tables(result)
        print(*result.commands, sep="\n")
    log.info("chosen: %s: %s", " + ".join(choice.chosen), choice.why)
    if result.decisions:
        steps = [step_text(step) for step in result.postprocessing.steps]
        log.info("post-processing: %s", "; ".join(steps) or f"no step is taken ({len(result.decisions)} were tried)")
    log.info("written: %s: find_best.json, postprocessing.json, predict_command.txt", folder)


if __name__ == "__main__":
    main()
