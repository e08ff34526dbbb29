"""``autoseg_suggest DATASET``: which slices or patches to annotate next, ranked."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from autoseg.assist.trained_model import trained_model
from autoseg.cli import common
from autoseg.core.errors import ConfigError
from autoseg.core.workspace import FOLD_PATTERN

if TYPE_CHECKING:
    from autoseg.assist.suggest import Ranking, Units
    from autoseg.assist.suggest_case import Selection

log = logging.getLogger("autoseg.suggest")

By = Literal["slice", "patch"]
Method = Literal["clasp", "entropy", "random"]


def main() -> NoReturn:
    """Entry point of the command."""
    common.run(suggest, lists={"-f": FOLD_PATTERN, "--folds": FOLD_PATTERN})


def suggest(
    dataset: common.DatasetArgument,
    *,
    configuration: common.ModelConfigurationOption = None,
    name: common.NameOption = "default",
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Number of suggestions.")] = 20,
    by: Annotated[By, typer.Option("--by", help="Unit of annotation.")] = "slice",
    axis: Annotated[
        int | None,
        typer.Option(
            "--axis",
            min=0,
            max=2,
            help="Axis that counts slices, 0 1 2 for z y x (default: the one whose spacing differs from the others).",
        ),
    ] = None,
    patch_size: Annotated[
        tuple[int, int, int] | None,
        typer.Option("--patch-size", metavar="Z Y X", help="Size in voxels (default: half of the network's patch)."),
    ] = None,
    method: Annotated[
        Method, typer.Option("--method", help="clasp: entropy, per class in turn, with noise; random: the baseline.")
    ] = "clasp",
    per_case: Annotated[
        float, typer.Option("--per-case", metavar="SHARE", help="Largest share of the suggestions from one case.")
    ] = 0.25,
    round_: Annotated[
        int, typer.Option("--round", min=1, help="Round of annotation, from 1: later rounds have less noise.")
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same suggestions.")] = 0,
    inputs: Annotated[
        Path | None, typer.Option("-i", "--input", help="Folder of unannotated images to rank instead.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder (default: suggestions, in the model's folder).")
    ] = None,
    folds: Annotated[
        list[str] | None, typer.Option("-f", "--folds", help="Folds to predict with (default: all finished ones).")
    ] = None,
    pictures: Annotated[int, typer.Option("--pictures", min=0, help="Suggestions to show in suggestions.png.")] = 12,
    tta: common.MirrorOption = True,
    device: common.DeviceOption = "auto",
    workers: common.WorkersOption = None,
    root: common.RootOption = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Rank the slices or patches to annotate next: those in whose unannotated voxels a model is most uncertain.

    Each training case is predicted by folds that did not train on it. Writes suggestions.csv, suggestions.json and
    suggestions.png. A case that cannot be predicted does not stop the others: it is named, and the exit code is 1.
    With -j 0 the next case is not read while the network computes.
    """
    check_units(by, axis, patch_size)
    from autoseg.assist.suggest import Units
    from autoseg.assist.suggest_case import Selection
    from autoseg.assist.suggest_run import SuggestionOptions, suggest_places
    from autoseg.cli.suggestion_table import print_table

    common.set_up_logging(verbose=verbose, quiet=quiet)
    space = common.workspace(root)
    data = common.load_dataset(space, dataset)
    units, selection = Units(by, axis, patch_size), Selection(number, method, per_case, round_, seed)
    model_folder = trained_model(space, data, configuration, name)
    options = SuggestionOptions(
        output or model_folder / "suggestions", inputs, folds, pictures, device, tta, common.n_workers(workers) > 0
    )
    ranking, result = suggest_places(
        space, data, model_folder, units, selection, options, stages=common.stages(quiet=quiet)
    )
    if json_:
        common.print_json(result)
    elif not quiet:
        print_table(ranking)
    say_what_is_missing(ranking, selection, units)


def check_units(by: By, axis: int | None, patch_size: tuple[int, int, int] | None) -> None:
    """Raise ``ConfigError`` if an option does not go with the unit of annotation, or the patch size is below 1."""
    if by == "slice" and patch_size is not None:
        raise ConfigError("--patch-size: found with --by slice, expected with --by patch. Drop it, or add --by patch.")
    if by == "patch" and axis is not None:
        raise ConfigError("--axis: found with --by patch, expected with --by slice. Drop it, or change --by.")
    if patch_size is not None and min(patch_size) < 1:
        raise ConfigError(f"--patch-size: found {patch_size}, expected voxels of 1 or more. Correct it.")


def say_what_is_missing(ranking: Ranking, selection: Selection, units: Units) -> None:
    """Warn, with reasons, if there are fewer suggestions than requested; raise ``IncompleteError`` if cases failed."""
    if ranking.left_over is not None:
        left, unit = ranking.left_over, "slices" if units.by == "slice" else "patches"
        reasons = [
            f"{number} {why}"
            for number, why in (
                (left.n_close, _too_close(units)),
                (left.n_certain, "in which the model is certain"),
                (left.n_annotated, "that are at least half annotated"),
            )
            if number
        ]
        log.warning(
            "%d suggestions instead of %d; the other %s: %s", len(ranking.suggestions), selection.number, unit,
            ", ".join(reasons) or "there are none",
        )  # fmt: skip
    if ranking.failed:
        lines = "\n".join(f"{case}: {error}" for case, error in ranking.failed.items())
        raise common.IncompleteError(f"{len(ranking.failed)} cases could not be predicted.\n{lines}")


def _too_close(units: Units) -> str:
    """Return a description of the candidates that are too close to a chosen one."""
    from autoseg.assist.suggest import SLICE_SPREAD

    if units.by == "patch":
        return "that overlap a suggested one"
    return f"within {SLICE_SPREAD:.0%} of the slices of their case from a suggested one, which are nearly the same"


if __name__ == "__main__":
    main()
