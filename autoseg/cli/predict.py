"""``autoseg_predict``: dense label maps of new images, by a trained model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli import common
from autoseg.core.errors import ConfigError
from autoseg.core.findings import counted

if TYPE_CHECKING:
    from autoseg.inference import PredictionReport

log = logging.getLogger("autoseg.predict")


def predict(
    *,
    inputs: Annotated[Path, typer.Option("-i", "--input", help="Folder of images, <case>_0000<ending> and so on.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the label maps, <case><ending>.")],
    dataset: Annotated[
        str | None, typer.Option("-d", "--dataset", help="Data set that the model was trained on (name, id or folder).")
    ] = None,
    configuration: Annotated[
        str | None, typer.Option("-c", "--configuration", help="Configuration of the model, for example 3d_fullres.")
    ] = None,
    name: common.NameOption = "default",
    model_folder: Annotated[
        Path | None, typer.Option("-m", "--model", help="Model folder with fold_<k> folders, instead of -d and -c.")
    ] = None,
    folds: Annotated[
        list[str] | None, typer.Option("-f", "--folds", help="Folds to average (default: all finished ones).")
    ] = None,
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="Which weights: final or best.")] = "final",
    tta: common.MirrorOption = True,
    step: Annotated[
        float | None,
        typer.Option("--step", help="Distance of windows as a share of the patch, 0 to 1 (0.5; with --fast 0.75)."),
    ] = None,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="No mirrored copies, wide steps, no windows without foreground at low resolution."),
    ] = False,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Also write <case>.npz with the probability of every head.")
    ] = False,
    instances: Annotated[
        str | None,
        typer.Option(
            "--instances",
            metavar="[METHOD]",
            help="Also part touching objects of each class, into OUTPUT/instances: watershed (default) or cellpose.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict cases again whose output exists.")] = False,
    device: common.DeviceOption = "auto",
    workers: common.WorkersOption = None,
    root: common.RootOption = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Predict every image of a folder with the mean of the trained folds.

    All inputs are checked first. Cases whose output exists are skipped. A case that cannot be predicted does not stop
    the others: it is named at the end, and the exit code is 1. With -j 0 reading, prediction and writing do not
    overlap.
    """
    folder = _model_folder(model_folder, dataset, configuration, name, root)
    from autoseg.inference import Predictor  # imports torch, so only after the arguments are checked

    common.set_up_logging(verbose=verbose, quiet=quiet)
    with common.progress("predict", quiet=quiet) as report:
        predictor = Predictor.load(
            folder, folds or None, device, checkpoint=checkpoint, mirror=tta, step=step, fast=fast
        )
        result = predictor.predict_files(
            inputs,
            output,
            overwrite=overwrite,
            save_probabilities=save_probabilities,
            instances=instances,
            workers=common.n_workers(workers),
            progress=report,
        )
    _conclude(result, output, as_json=json_)


def main() -> None:
    """Entry point of the command."""
    common.run(predict, lists={"-f": _FOLD, "--folds": _FOLD}, defaults={"--instances": "watershed"})


_FOLD = r"\d+|all"


def _model_folder(
    given: Path | None, dataset: str | None, configuration: str | None, name: str, root: Path | None
) -> Path:
    """Return the model folder that is given by -m, or by -d and -c with --name."""
    if given is not None:
        if dataset is not None or configuration is not None:
            raise ConfigError(
                "arguments: found -m together with -d or -c, expected one way to name the model. Drop one."
            )
        return given
    if dataset is None or configuration is None:
        raise ConfigError(
            "arguments: found no model, expected -m MODEL_FOLDER, or -d DATASET with -c CONFIGURATION. Add it."
        )
    workspace = common.workspace(root)
    trained = workspace.model(dataset, configuration, name)
    if Path(dataset).name == dataset and trained.parent.is_dir():
        return trained  # the training data is not needed, and may have been moved
    return workspace.model(common.load_dataset(workspace, dataset).name, configuration, name)


def _conclude(result: PredictionReport, output: Path, *, as_json: bool) -> None:
    """Report the result; raise ``IncompleteError`` if a case could not be predicted."""
    if as_json:
        common.print_json(
            {
                "done": result.done,
                "skipped": result.skipped,
                "failed": dict(result.failed),
                "warnings": result.warnings,
                "output": str(output),
            }
        )
    skipped = f", {len(result.skipped)} existed already (--overwrite predicts them again)" if result.skipped else ""
    log.info("%s: %d predicted%s", output, len(result.done), skipped)
    if result.failed:
        names: dict[str, list[str]] = {}
        for name, reason in result.failed.items():
            names.setdefault(reason, []).append(name)
        lines = "\n  ".join(f"{', '.join(cases)}: {reason}" for reason, cases in names.items())
        raise common.IncompleteError(f"{counted(len(result.failed), 'case')} could not be predicted:\n  {lines}")


if __name__ == "__main__":
    main()
