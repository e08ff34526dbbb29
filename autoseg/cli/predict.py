"""``autoseg_predict``: dense label maps of new images, by a trained model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli import common
from autoseg.core.errors import ConfigError
from autoseg.core.findings import counted
from autoseg.core.location import path_of
from autoseg.core.workspace import FOLD_PATTERN

if TYPE_CHECKING:
    from autoseg.inference import PredictionReport

log = logging.getLogger("autoseg.predict")


def predict(
    *,
    inputs: Annotated[
        list[Path],
        typer.Option(
            "-i",
            "--input",
            help="Folder of images <case>_0000<ending>, an image, a .txt file of paths, or a volume (its channels).",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the label maps, <case><ending>.")],
    dataset: Annotated[
        str | None, typer.Option("-d", "--dataset", help="Data set that the model was trained on (name, id or folder).")
    ] = None,
    configurations: Annotated[
        list[str] | None,
        typer.Option(
            "-c", "--configuration", help="Configurations to average, for example 3d_fullres, or 2d 3d_fullres."
        ),
    ] = None,
    name: common.NameOption = "default",
    model_folders: Annotated[
        list[Path] | None,
        typer.Option("-m", "--model", help="Model folders with fold_<k> folders to average, instead of -d and -c."),
    ] = None,
    folds: Annotated[
        list[str] | None,
        typer.Option("-f", "--folds", help="Folds to average, with all their seeds (default: all finished ones)."),
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
    save_uncertainty: Annotated[
        bool, typer.Option("--save-uncertainty", help="Also write maps and means of the uncertainty to uncertainty/.")
    ] = False,
    quality: Annotated[
        bool, typer.Option("--quality/--no-quality", help="Write quality.csv: how good each case may be, worst first.")
    ] = True,
    instances: Annotated[
        str | None,
        typer.Option(
            "--instances",
            metavar="[METHOD]",
            help="Also part touching objects of each class, into OUTPUT/instances: watershed (default) or cellpose; "
            "with a model of affinities, how its label maps part them: watershed or mutex.",
        ),
    ] = None,
    blockwise: Annotated[
        bool, typer.Option("--blockwise", help="Predict an image file part by part, as volumes always are.")
    ] = False,
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", help="Memory for a volume, in all (default: half of what is free).")
    ] = None,
    part: Annotated[
        str | None, typer.Option("--part", metavar="I/N", help="Predict the I-th of N parts of a volume.")
    ] = None,
    write_as: Annotated[
        str, typer.Option("--write-as", help="Format of a volume's label map: .zarr, or also .tif or .nii.gz.")
    ] = ".zarr",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict cases again whose output exists.")] = False,
    device: common.DeviceOption = "auto",
    workers: common.WorkersOption = None,
    cluster: common.ClusterOption = None,
    root: common.RootOption = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Predict every image of a folder or a list with the mean of the trained networks.

    The mean is that of the logits of all folds and seeds of a model, and of the probabilities of several models.
    Each line of a .txt file is an image, or the channel files of a case separated by tabs; relative paths start at its
    folder. All inputs are checked first. Cases whose output exists are skipped. A case that cannot be predicted does
    not stop the others: it is named at the end, and the exit code is 1. With -j 0 reading, prediction and writing do
    not overlap.

    A volume of any size (Zarr, N5, Precomputed, HDF5 as file.h5:key, tiles, a folder of sections) is predicted part by
    part, and goes on where it was stopped; see docs/volumes.md.
    """
    models = _model_folders(model_folders or [], dataset, configurations or [], name, root)
    from autoseg.inference.predict_images import (
        predict_images,  # imports torch, so only after the arguments are checked
    )
    from autoseg.inference.volume_options import VolumeOptions
    from autoseg.inference.volume_units import Part

    volume = VolumeOptions(blockwise, memory_gb, Part.parse(part) if part else Part(), write_as)

    common.set_up_logging(verbose=verbose, quiet=quiet)
    with (
        common.workers_of(
            workers, cluster, [*map(path_of, map(str, inputs)), *models], output=output, resource="GPU"
        ) as given,
        common.progress("predict", quiet=quiet) as report,
    ):
        result = predict_images(
            inputs[0] if len(inputs) == 1 else [inputs], output, models, folds=folds or None, device=device,
            checkpoint=checkpoint, mirror=tta, step=step, fast=fast, save_probabilities=save_probabilities,
            save_uncertainty=save_uncertainty, instances=instances, overwrite=overwrite, predict_quality=quality,
            volume=volume, workers=common.n_workers(given), progress=report,
        )  # fmt: skip
    _conclude(result, output, as_json=json_)


def main() -> None:
    """Entry point of the command."""
    lists = dict.fromkeys(("-i", "--input", "-m", "--model", "-c", "--configuration"), r"[^-].*")
    lists |= dict.fromkeys(("-f", "--folds"), FOLD_PATTERN)
    common.run(predict, lists=lists, defaults={"--instances": "watershed"})


def _model_folders(
    given: Sequence[Path], dataset: str | None, configurations: Sequence[str], name: str, root: Path | None
) -> list[Path]:
    """Return the model folders that are given by -m, or by -d and -c with --name."""
    if given:
        if dataset is not None or configurations:
            raise ConfigError(
                "arguments: found -m together with -d or -c, expected one way to name the model. Drop one."
            )
        return [*given]
    if dataset is None or not configurations:
        raise ConfigError(
            "arguments: found no model, expected -m MODEL_FOLDER, or -d DATASET with -c CONFIGURATION. Add it."
        )
    workspace = common.workspace(root)
    trained = workspace.results(dataset)
    if Path(dataset).name != dataset or not trained.is_dir():  # otherwise the training data may have been moved
        from autoseg.dataset.dataset import Dataset

        dataset = Dataset.load(common.find_dataset(workspace, dataset)).name
    return [workspace.model(dataset, configuration, name) for configuration in configurations]


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
