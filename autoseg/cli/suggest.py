"""``autoseg_suggest DATASET``: which slices or patches to annotate next, ranked."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from autoseg.cli import common
from autoseg.core.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoseg.assist.suggest import Ranking, Units
    from autoseg.assist.suggest_case import Selection
    from autoseg.core.workspace import Workspace
    from autoseg.dataset.dataset import CaseFiles, Dataset

log = logging.getLogger("autoseg.suggest")

By = Literal["slice", "patch"]
Method = Literal["clasp", "entropy", "random"]
FOLD = r"\d+|all"


def main() -> NoReturn:
    """Entry point of the command."""
    common.run(suggest, lists={"-f": FOLD, "--folds": FOLD})


def suggest(
    dataset: Annotated[str, typer.Argument(help="Folder with a dataset.json, a name under ROOT/raw, or nnU-Net's id.")],
    *,
    configuration: Annotated[
        str | None, typer.Option("-c", "--configuration", help="Of the model (default: the only one that is trained).")
    ] = None,
    name: common.NameOption = "default",
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many suggestions.")] = 20,
    by: Annotated[By, typer.Option("--by", help="What is annotated at a time.")] = "slice",
    axis: Annotated[
        int | None,
        typer.Option(
            "--axis",
            min=0,
            max=2,
            help="Axis that counts slices, 0 1 2 for z y x (default: of the odd spacing).",
        ),
    ] = None,
    patch_size: Annotated[
        tuple[int, int, int] | None,
        typer.Option("--patch-size", metavar="Z Y X", help="Voxels (default: half of the network's patch)."),
    ] = None,
    method: Annotated[
        Method, typer.Option("--method", help="clasp: entropy, per class in turn, with noise; random: the baseline.")
    ] = "clasp",
    per_case: Annotated[
        float, typer.Option("--per-case", metavar="SHARE", help="Largest share of the suggestions from one case.")
    ] = 0.25,
    round_: Annotated[
        int, typer.Option("--round", min=1, help="How often you asked before, plus 1: later rounds have less noise.")
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same suggestions.")] = 0,
    inputs: Annotated[
        Path | None, typer.Option("-i", "--input", help="Rank these images instead, which nobody has annotated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder (default: suggestions, in the model's folder).")
    ] = None,
    folds: Annotated[
        list[str] | None, typer.Option("-f", "--folds", help="Folds to predict with (default: all that are finished).")
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
    """Rank what to annotate next: the slices or patches in which a model is most unsure of what is not annotated.

    Each training case is predicted by folds that did not train on it. Writes suggestions.csv, suggestions.json and
    suggestions.png. A case that cannot be predicted does not stop the others: it is named, and the exit code is 1.
    With -j 0 the next case is not read while the network works.
    """
    check_units(by, axis, patch_size)
    from autoseg.assist.suggest import Units
    from autoseg.assist.suggest_case import Selection

    common.set_up_logging(verbose=verbose, quiet=quiet)
    space = common.workspace(root)
    data = common.load_dataset(space, dataset)
    units, selection = Units(by, axis, patch_size), Selection(number, method, per_case, round_, seed)
    ranking = suggest_places(
        space, data, configuration, name, units, selection, inputs=inputs, output=output, folds=folds,
        n_pictures=pictures, device=device, mirror=tta, read_ahead=common.n_workers(workers) > 0, as_json=json_,
        quiet=quiet,
    )  # fmt: skip
    say_what_is_missing(ranking, selection, units)


def suggest_places(
    space: Workspace,
    data: Dataset,
    configuration: str | None,
    name: str,
    units: Units,
    selection: Selection,
    *,
    inputs: Path | None,
    output: Path | None,
    folds: Sequence[str] | None,
    n_pictures: int,
    device: str,
    mirror: bool,
    read_ahead: bool,
    as_json: bool,
    quiet: bool,
) -> Ranking:
    """Rank the places, write table and pictures, and print the result unless ``quiet``."""
    from autoseg.assist.complete import what_is_left
    from autoseg.assist.suggest import members_of, rank
    from autoseg.cli.out_of_fold import trained_model
    from autoseg.cli.suggestion_files import conclude, maps_folder
    from autoseg.inference.out_of_fold import CaseModels, seen_cases
    from autoseg.inspection.statements import with_known_promises

    data = with_known_promises(data, space.preprocessed(data.name))
    if units.by == "slice" and units.axis is None:
        units = replace(units, axis=data.protocol.slice_axis)
    model = trained_model(space, data, configuration, name)
    cases = {case.name: case for case in data.cases} if inputs is None else images_in(inputs, data)
    members = members_of(model, list(cases), list(folds or []) or None)
    models = CaseModels(model, members, device, mirror=mirror, seen=seen_cases(model, members))
    folder = output or model / "suggestions"
    refuse_data_sets(folder)
    with maps_folder(folder) as maps:
        with common.progress("predict", quiet=quiet) as report:
            ranking = rank(
                cases, models, data.labels, units, selection,
                left=lambda case: what_is_left(case, data) or case.target, maps=maps, read_ahead=read_ahead,
                progress=report,
            )  # fmt: skip
        settings = described(data, model, inputs, units, selection)
        conclude(
            ranking, settings, cases, data.labels, folder, maps, n_pictures=n_pictures, as_json=as_json, quiet=quiet
        )
    return ranking


def check_units(by: By, axis: int | None, patch_size: tuple[int, int, int] | None) -> None:
    """Raise ``ConfigError`` if an option does not go with what is annotated at a time."""
    if by == "slice" and patch_size is not None:
        raise ConfigError("--patch-size: found with --by slice, expected with --by patch. Drop it, or add --by patch.")
    if by == "patch" and axis is not None:
        raise ConfigError("--axis: found with --by patch, expected with --by slice. Drop one.")
    if patch_size is not None and min(patch_size) < 1:
        raise ConfigError(f"--patch-size: found {patch_size}, expected voxels of 1 or more. Correct it.")


def images_in(folder: Path, dataset: Dataset) -> dict[str, CaseFiles]:
    """Return the cases of a folder of images, none of them annotated; raise ``DatasetError`` with what is wrong."""
    from autoseg.dataset.case_files import find_image_cases
    from autoseg.dataset.dataset import CaseFiles
    from autoseg.dataset.folder_files import strays

    found, faults = find_image_cases(folder, dataset.file_ending, len(dataset.channels))
    faults += strays(folder, dataset.file_ending) if found else []
    if faults:
        raise DatasetError(faults)
    return {name: CaseFiles(name, files) for name, files in found.items()}


def refuse_data_sets(folder: Path) -> None:
    """Raise ``ConfigError`` if ``folder`` holds images or a data set."""
    if (folder / "imagesTr").is_dir() or (folder / "dataset.json").is_file():
        raise ConfigError(f"{folder}: found a data set, expected a folder for suggestions. Choose another -o.")


def described(dataset: Dataset, model: Path, inputs: Path | None, units: Units, selection: Selection) -> dict[str, Any]:
    """Return what the suggestions were made of and how, as plain values."""
    return {
        "dataset": dataset.name,
        "model": str(model),
        "images": None if inputs is None else str(inputs),
        "by": units.by,
        "patch_size": None if units.patch_size is None else list(units.patch_size),
        "method": selection.method,
        "number": selection.number,
        "per_case": selection.case_share,
        "round": selection.round,
        "seed": selection.seed,
    }


def say_what_is_missing(ranking: Ranking, selection: Selection, units: Units) -> None:
    """Warn of fewer suggestions than asked for, and why; raise ``IncompleteError`` if cases failed."""
    if ranking.left_over is not None:
        left, unit = ranking.left_over, "slices" if units.by == "slice" else "patches"
        reasons = [
            f"{number} {why}"
            for number, why in (
                (left.n_close, _too_close(units)),
                (left.n_certain, "of which the model is certain"),
                (left.n_annotated, "of which at least half is annotated"),
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
    """Say which candidates give way to one that was chosen."""
    from autoseg.assist.suggest import SLICE_SPREAD

    if units.by == "patch":
        return "that overlap a suggested one"
    return f"within {SLICE_SPREAD:.0%} of the slices of their case from a suggested one, which teach nearly the same"


if __name__ == "__main__":
    main()
