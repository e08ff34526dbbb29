"""Choice among the trained models of a data set and their pairs, and of the post-processing of the chosen one."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from autoseg.assist.own_separation import is_parted_by_mutex, predicted_by_mutex
from autoseg.assist.pair_predictions import PairPredictions, predict_pairs
from autoseg.assist.trained_folds import TrainedModel, TrainedModels, find_trained_models
from autoseg.core.atomic import write_text
from autoseg.core.boxes import Spans, box_of
from autoseg.core.errors import EvaluationError, ModelError
from autoseg.core.json_models import save_model
from autoseg.core.progress import Progress, Stages, silent_stages
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.evaluation import Summary, evaluate_files
from autoseg.evaluation.choose_postprocessing import Decision, choose_postprocessing
from autoseg.evaluation.ensemble_folders import decides_by_heads
from autoseg.evaluation.model_choice import Members, ModelChoice, choose_model
from autoseg.evaluation.postprocessing import POSTPROCESSING_JSON, Postprocessing
from autoseg.evaluation.postprocessing_effects import ScoredFiles
from autoseg.inference.agreement import check_agreement
from autoseg.inference.model import load_model
from autoseg.nn.device import select_device
from autoseg.tasks.task import refuse_regression

log = logging.getLogger(__name__)

FIND_BEST_JSON, COMMAND_FILE = "find_best.json", "predict_command.txt"
PAIRS_FOLDER = "find_best"
MEASURE = "mean {} over out-of-fold cases, then over classes or regions, on decided voxels"
IMAGES, PREDICTIONS = "new_images", "predictions"
"""Folders in the commands for new images."""


class FindBest(BaseModel):
    """Content of ``find_best.json``."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    measure: str
    folds: tuple[str, ...]
    cases: tuple[str, ...]
    """Cases that every model was scored on, each predicted by the fold that left it out."""
    boxes: dict[str, Spans] = {}
    """Case that is too large for memory -> the box of its volume, [[z0, z1], [y0, y1], [x0, x1]], that stood for it."""
    choice: ModelChoice
    left_out: dict[str, str]
    """Model folder that could not be compared -> reason."""
    postprocessing: Postprocessing
    """Chosen steps, also in ``postprocessing.json``."""
    decisions: tuple[Decision, ...]
    """All steps that were tried."""
    commands: tuple[str, ...]
    """Command lines that predict the images of the folder ``new_images``, also in ``predict_command.txt``."""


@dataclass(frozen=True, slots=True)
class FindBestOptions:
    """Settings of :func:`find_best`."""

    configurations: tuple[str, ...] = ()
    """Configurations to compare; empty: all."""
    names: tuple[str, ...] = ()
    """Names of trainings to compare; empty: all."""
    folds: tuple[str, ...] = ()
    """Folds to use; empty: all of the split."""
    with_pairs: bool = True
    with_postprocessing: bool = True
    device: str = "auto"
    workers: int = 1


def find_best(
    workspace: Workspace, dataset: Dataset, options: FindBestOptions, stages: Stages = silent_stages
) -> FindBest:
    """Compare the trained models of a data set and their pairs, and decide on post-processing.

    Models are compared by what each fold predicted of the cases that it left out; see
    :func:`autoseg.evaluation.model_choice.choose_model` for the rule. Pairs are predicted anew, by the same folds, into
    ``ROOT/results/DATASET/find_best/``, as far as their label maps there are missing or older than the weights. So are
    models of objects whose ``separation.json`` says mutex, as validations part objects by the watershed.
    Post-processing is chosen on the predictions of the chosen model by
    :func:`autoseg.evaluation.choose_postprocessing.choose_postprocessing`. The results are written to
    ``ROOT/results/DATASET``: ``find_best.json``, ``postprocessing.json``, and the commands for new images in
    ``predict_command.txt``. With a single model this decides on post-processing alone.

    Raises
    ------
    ConfigError, ModelError
        See :func:`autoseg.assist.trained_folds.find_trained_models`; also if the task is regression, or there is no
        such device.
    EvaluationError
        If no case of a model can be scored.
    AutosegError
        If a case cannot be predicted or read.
    """
    refuse_regression(dataset.labels, "finding the best model")
    select_device(options.device)  # so that a wrong name is found before hours of work
    trained = find_trained_models(
        workspace, dataset, configurations=options.configurations, names=options.names, folds=options.folds
    )
    dataset = trained.dataset
    for case, spans in trained.boxes.items():
        log.warning("case %s is too large for memory: models are compared in its box %s", case, box_of(spans))
    combines = decides_by_heads(dataset.labels)
    folder = workspace.results(dataset.name)
    paired = trained.models if combines and options.with_pairs else ()
    pairs = PairPredictions(paired, folder / PAIRS_FOLDER, frozenset(trained.boxes))
    if pairs.pairs:
        with stages("predict pairs") as progress:
            predict_pairs(pairs, dataset, device=options.device, workers=options.workers, progress=progress)
    files = _files(_with_own_maps(trained, folder / PAIRS_FOLDER, options, stages), pairs)
    scored: dict[Members, Summary] = {}
    for members, predictions in files.items():
        with stages(f"evaluate {' + '.join(members)}") as progress:
            scored[members] = _score(dataset, predictions, options.workers, progress)
    choice = choose_model(scored)
    decided = None
    if combines and options.with_postprocessing:
        decided = choose_postprocessing(
            _scored_files(dataset, files[choice.chosen]), dataset.labels, workers=options.workers, stages=stages
        )
    postprocessing = decided.postprocessing if decided else Postprocessing(steps=())
    chosen = [model for model in trained.models if model.name in choice.chosen]
    result = FindBest(
        dataset=dataset.name,
        measure=MEASURE.format(choice.measure),
        folds=trained.folds,
        cases=tuple(sorted(trained.models[0].fold_of)),
        boxes=dict(trained.boxes),
        choice=choice,
        left_out=dict(trained.left_out),
        postprocessing=postprocessing,
        decisions=decided.decisions if decided else (),
        commands=prediction_commands(
            [model.folder for model in chosen],
            trained.folds,
            folder / POSTPROCESSING_JSON if postprocessing.steps else None,
        ),
    )
    save_model(postprocessing, folder / POSTPROCESSING_JSON)
    write_text(folder / COMMAND_FILE, command_text(result))
    save_model(result, folder / FIND_BEST_JSON)
    return result


def _with_own_maps(
    trained: TrainedModels, folder: Path, options: FindBestOptions, stages: Stages
) -> list[TrainedModel]:
    """Return the models with label maps whose objects are parted by the method of each."""
    found = []
    for model in trained.models:
        if is_parted_by_mutex(model, trained.dataset):
            with stages(f"predict {model.name} by the mutex watershed") as progress:
                model = predicted_by_mutex(
                    model, trained.dataset, folder, boxes=trained.boxes, device=options.device,
                    workers=options.workers, progress=progress,
                )  # fmt: skip
        found.append(model)
    return found


def prediction_commands(
    model_folders: Sequence[Path], folds: Sequence[str], postprocessing: Path | None
) -> tuple[str, ...]:
    """Return the command lines that predict the images in ``new_images`` by one model or a pair.

    Models whose plans agree in axes and crop are averaged by ``autoseg_predict``, others by ``autoseg_ensemble``.

    Parameters
    ----------
    model_folders
        One, or the two whose probabilities are averaged.
    folds
        The folds that were compared; all of them are finished.
    postprocessing
        Path of postprocessing.json; None without steps.
    """
    output = PREDICTIONS if postprocessing is None else f"{PREDICTIONS}_raw"
    predict = ["autoseg_predict", "-i", IMAGES, "-o"]
    models = [str(folder.resolve()) for folder in model_folders]
    if _are_averaged_at_once(model_folders, folds[0]):
        lines = [[*predict, output, "-m", *models, "-f", *folds]]
    else:
        parts = [f"{PREDICTIONS}_{folder.name}" for folder in model_folders]
        lines = [
            [*predict, part, "-m", model, "-f", *folds, "--save-probabilities"]
            for part, model in zip(parts, models, strict=True)
        ]
        lines.append(["autoseg_ensemble", *parts, "-o", output])
    if postprocessing is not None:
        lines.append(["autoseg_postprocess", output, "-o", PREDICTIONS, "-p", str(postprocessing.resolve())])
    return tuple(map(shlex.join, lines))


def _are_averaged_at_once(model_folders: Sequence[Path], fold: str) -> bool:
    """Whether ``autoseg_predict`` averages the models; it needs the same axes and crop in their plans."""
    if len(model_folders) == 1:
        return True
    try:
        check_agreement([load_model(folder, [fold], torch.device("cpu")) for folder in model_folders])
    except ModelError:
        return False
    return True


def command_text(result: FindBest) -> str:
    """Return the content of ``predict_command.txt``, which a shell can run."""
    head = f"# {result.dataset}: {' + '.join(result.choice.chosen)}. Images are in {IMAGES}, results in {PREDICTIONS}."
    return "\n".join([head, *result.commands]) + "\n"


def _files(models: Sequence[TrainedModel], pairs: PairPredictions) -> dict[Members, dict[str, Path]]:
    """Return members -> case -> label map, single models first."""
    single: dict[Members, dict[str, Path]] = {(model.name,): dict(model.predictions) for model in models}
    return single | {pair: {case: pairs.path(pair, case) for case in models[0].fold_of} for pair in pairs.pairs}


def _scored_files(dataset: Dataset, predictions: Mapping[str, Path]) -> list[ScoredFiles]:
    """Return the predictions with their references; cases without a label file have none."""
    cases = [dataset.case(name) for name in sorted(predictions)]
    return [
        ScoredFiles(case.name, case.label, predictions[case.name], case.valid_mask, case.images)
        for case in cases
        if case.label is not None
    ]


def _score(dataset: Dataset, predictions: Mapping[str, Path], workers: int, progress: Progress) -> Summary:
    """Return the scores of predictions; raise ``EvaluationError`` with all reasons if a case cannot be scored."""
    files = _scored_files(dataset, predictions)
    pairs = {item.case: (item.reference, item.prediction) for item in files}
    masks = {item.case: item.mask for item in files if item.mask is not None}
    images = {item.case: item.images for item in files}
    summary = evaluate_files(pairs, dataset.labels, masks=masks, images=images, workers=workers, progress=progress)
    if summary.faults:
        raise EvaluationError("\n".join(summary.faults))
    return summary
