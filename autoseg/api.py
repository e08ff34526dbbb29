"""The commands as functions: each takes a data set, does one step, and returns its result.

Functions import what they need when they are called, so that ``import autoseg`` is quick. If ``workers``, a number of
processes, is above 1 (in :func:`train`: above 0), a script must guard its calls with ``if __name__ == "__main__":``.
Nothing is printed; warnings go to the logger ``autoseg``. Mistakes of the user raise ``UserError``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from autoseg.assist.complete import CompletionReport
    from autoseg.assist.suggest import Ranking
    from autoseg.core.plan import Plan
    from autoseg.core.workspace import Workspace
    from autoseg.dataset.dataset import Dataset
    from autoseg.evaluation import AnySummary
    from autoseg.inference.folder import PredictionReport
    from autoseg.inference.predictor import Predictor
    from autoseg.planning.check_report import CheckReport
    from autoseg.sampling.patch_view import PatchView
    from autoseg.training.validation import TrainedFold

log = logging.getLogger(__name__)

ROOT = "autoseg_workspace"
"""Default of the workspace folder; unlike the commands, functions do not read $AUTOSEG_ROOT."""


def check(dataset: Dataset | str | Path, *, root: str | Path = ROOT, workers: int = 1) -> CheckReport:
    """Read every file of a data set and report all faults and the annotated shares.

    Same as ``autoseg_plan_and_preprocess DATASET --check-only``. Nothing is written. Faults are reported, not raised:
    call ``.raise_if_faulty()`` on the report to raise them. A data set given by its path may have faults in its
    dataset.json, too.

    Parameters
    ----------
    dataset
        A data set, or its folder, its name below ``root/raw``, or nnU-Net's number.
    root
        Workspace folder.
    workers
        Number of processes; 1 reads in the calling process.

    Raises ``DatasetError`` if there is no dataset.json, or it is not JSON.
    """
    from autoseg.interop.expert_labels import open_for_check
    from autoseg.planning.check_dataset import check_dataset

    space = _workspace(root)
    with open_for_check(dataset, space, workers=workers) as (described, faults):
        return check_dataset(described, faults, space.preprocessed(described.name), workers)


def plan(
    dataset: Dataset | str | Path,
    *,
    root: str | Path = ROOT,
    planner: str | None = None,
    gpu_memory_gb: float | None = None,
    replan: bool = False,
    plan_of: str | Path | None = None,
    settings: Sequence[str] = (),
    workers: int = 1,
) -> Plan:
    """Check and measure the files, make the plan that follows from them, and split the cases into folds.

    Same as the first half of ``autoseg_plan_and_preprocess``: writes plans.json, the fingerprint and the splits to
    ``root/preprocessed/DATASET``. An existing plan is kept, with the edits of plans.json. A new plan is made for
    another planner, another memory or another network, or with ``replan``, which discards edits.

    ``planner`` is ``default``, ``resenc_m``, ``resenc_l``, ``resenc_xl`` or ``small``; None takes that of the existing
    plan, and so does ``gpu_memory_gb`` (GiB). ``plan_of``, a checkpoint or model folder, gives its networks instead.
    ``settings`` are options of the network, as in ``["network.levels=4"]``; others are as before. ``dataset``,
    ``root`` and ``workers`` as in :func:`check`.

    Raises ``DatasetError`` with every fault of the files, ``PlanError`` if there is no such planner or an edit cannot
    work, ``ConfigError`` if edits would be lost without ``replan``, an option is wrong, or a task breaks its contract.
    """
    from autoseg.planning.plan_dataset import plan_dataset
    from autoseg.planning.plan_edits import PlanningOptions
    from autoseg.training.pretrained import plan_of_model

    model_plan = None if plan_of is None else plan_of_model(Path(plan_of))
    options, data = PlanningOptions(planner, gpu_memory_gb, replan, model_plan, settings), _dataset(dataset, root)
    if data.labels.task is not None:
        from autoseg.training.check_task import check_task

        check_task(data.labels)
    return plan_dataset(data, _workspace(root), options, workers).plan


def preprocess(
    dataset: Dataset | str | Path,
    *,
    root: str | Path = ROOT,
    configurations: Sequence[str] | None = None,
    workers: int = 1,
) -> tuple[str, ...]:
    """Write the caches that training reads, by the plan in the workspace; return the configurations.

    Same as the second half of ``autoseg_plan_and_preprocess``. Cached cases that have not changed are kept.
    ``configurations`` are names such as ``2d`` or ``3d_fullres``; None takes those of the last run, at first all but
    the cascade.

    Raises ``PlanError`` if there is no plan yet, or it has no such configuration; ``AutosegError`` naming the cases
    that cannot be preprocessed, after all others are cached.
    """
    from autoseg.planning.preprocess_dataset import preprocess_by_plan
    from autoseg.training.cascade import previous_maps_in

    data, workspace = _dataset(dataset, root), _workspace(root)
    return preprocess_by_plan(data, workspace, configurations, workers, previous=previous_maps_in(workspace, data))


def preview_batches(
    dataset: Dataset | str | Path,
    output: str | Path,
    *,
    root: str | Path = ROOT,
    configuration: str | None = None,
    fold: int | str = 0,
    number: int = 12,
    iteration: int = 0,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> list[PatchView]:
    """Write a picture of training patches, as the network gets them, to the PNG file ``output``; return the patches.

    Same as ``autoseg_preview_batches``. ``settings`` as in :func:`train`; with ``augmentation="none"`` and
    ``mirror=False`` the same patches are shown without augmentation. The data set must be preprocessed.
    """
    from autoseg.training.prepare import prepare_fold
    from autoseg.training.preview_picture import draw_patches
    from autoseg.training.run_config import RunOptions

    options = RunOptions(str(fold), configuration, seed=seed, settings=_assignments(settings), workers=0, device="cpu")
    request = prepare_fold(_workspace(root), _dataset(dataset, root), options)
    return draw_patches(request, number, iteration, Path(output))


def train(
    dataset: Dataset | str | Path,
    fold: int | str,
    *,
    root: str | Path = ROOT,
    configuration: str | None = None,
    name: str = "default",
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    epochs: int | None = None,
    iterations: int | None = None,
    max_runtime_s: float | None = None,
    seed: int = 0,
    pretrained: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    workers: int = 0,
    on_steps: Callable[[Any, float, float], None] = lambda progress, loss, rate: None,
) -> TrainedFold:
    """Train one fold, then predict its validation cases and score them.

    Same as ``autoseg_train``, except that Ctrl-C raises ``KeyboardInterrupt``; ``resume`` continues after the last
    epoch.

    Parameters
    ----------
    fold
        Number from 0, or ``"all"`` to train on every case; ``"all_seed1"`` ... are further seeds of an ensemble.
    settings
        Fields of :class:`autoseg.training.config.TrainingConfig`, such as ``{"batch_size": 4, "optimizer": "sgd"}``.
    workers
        Number of processes that build batches ahead; 0 builds them in the calling process. The result is the same.
    on_steps
        Called every few steps with (progress, latest loss, learning rate); ``progress.iteration`` counts the steps.

    Raises
    ------
    ConfigError
        A setting is wrong, or the folder holds a run and neither ``resume`` nor ``overwrite`` is given.
    PlanError, CacheError
        The data set is not planned, or not preprocessed from the present files.
    """
    from autoseg.training.fold import train_fold
    from autoseg.training.prepare import check_folder, check_start, prepare_fold
    from autoseg.training.run_config import RunOptions
    from autoseg.training.validation import TrainedFold, validate_fold

    options = RunOptions(
        str(fold), configuration, name, device, epochs, iterations, max_runtime_s, seed,
        None if pretrained is None else Path(pretrained), _assignments(settings), workers,
    )  # fmt: skip
    request = prepare_fold(_workspace(root), _dataset(dataset, root), options)
    check_start(request, resume=resume, overwrite=overwrite)
    train_fold(request, resume=check_folder(request.folder, resume=resume, overwrite=overwrite), on_steps=on_steps)
    return TrainedFold(request.folder, validate_fold(request, workers=max(workers, 1)))


def predict(
    inputs: str | Path | Sequence[Sequence[str | Path]] | Mapping[str, Sequence[str | Path]],
    output: str | Path,
    model: str | Path | Predictor | Sequence[str | Path | Predictor],
    *,
    folds: Sequence[int | str] | None = None,
    device: str = "auto",
    mirror: bool = True,
    fast: bool = False,
    save_probabilities: bool = False,
    save_uncertainty: bool = False,
    instances: Literal["watershed", "cellpose"] | None = None,
    overwrite: bool = False,
    workers: int = 1,
) -> PredictionReport:
    """Predict images with the mean of the trained networks, and write ``<case><ending>`` to the folder ``output``.

    Same as ``autoseg_predict``; for arrays :class:`autoseg.Predictor`. A case that fails does not stop the others.

    Parameters
    ----------
    inputs
        Folder of images, an image, a ``.txt`` file of paths, the channel files of each case, or case -> files.
    model
        Model folder, or a loaded predictor, for which ``folds``, ``device``, ``mirror`` and ``fast`` have no effect; or
        several of one data set, whose probabilities are averaged.
    fast
        Several times faster for slightly less accuracy, without mirroring; see :meth:`autoseg.Predictor.load`.
    instances
        Also part touching objects of each class of a model of classes, into the folder ``instances``; None: do not.
    """
    from autoseg.inference.predict_images import predict_images

    models = model if isinstance(model, Sequence) and not isinstance(model, str) else [model]
    return predict_images(
        inputs, output, models, folds=folds, device=device, mirror=mirror, fast=fast, instances=instances,
        save_probabilities=save_probabilities, save_uncertainty=save_uncertainty, overwrite=overwrite, workers=workers,
    )  # fmt: skip


def evaluate(
    reference: str | Path,
    predictions: str | Path,
    dataset_json: str | Path | Mapping[str, Any] | Dataset | None = None,
    *,
    output: str | Path | None = None,
    against: str | Path | None = None,
    strict: bool = False,
    tolerance_mm: float | None = None,
    workers: int = 1,
) -> AnySummary:
    """Score predictions on the voxels that the references decide, as ``autoseg_evaluate_folder``; return the summary.

    ``output``: JSON file for the summary, or None. Others, and errors: :func:`autoseg.evaluation.score_folder`.
    """
    from autoseg.evaluation import score_folder

    summary = score_folder(
        reference, predictions, dataset_json, against=against, workers=workers, strict=strict, tolerance_mm=tolerance_mm
    )
    if output is not None:
        summary.write(output)
    return summary


def complete(
    dataset: Dataset | str | Path,
    output: str | Path,
    *,
    root: str | Path = ROOT,
    configuration: str | None = None,
    name: str = "default",
    review: bool = False,
    seen: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    mirror: bool = True,
    workers: int = 1,
) -> CompletionReport:
    """Write a new data set to ``output``: annotation stays, the rest is predicted by folds that left the case out.

    Same as ``autoseg_complete``. Every fold must be trained, unless ``seen`` allows a model that was trained on the
    case. ``review`` lists where the model disagrees with the annotation. A failed case does not stop the others.
    """
    from autoseg.assist.complete import CompletionOptions
    from autoseg.assist.complete_run import complete_cases
    from autoseg.assist.trained_model import trained_model

    space, data = _workspace(root), _dataset(dataset, root)
    options = CompletionOptions(device, mirror, review, overwrite, workers=workers)
    return complete_cases(
        space, data, Path(output), trained_model(space, data, configuration, name), options, allow_seen=seen
    )


def suggest(
    dataset: Dataset | str | Path,
    *,
    root: str | Path = ROOT,
    configuration: str | None = None,
    name: str = "default",
    number: int = 20,
    by: Literal["slice", "patch"] = "slice",
    method: Literal["clasp", "entropy", "random"] = "clasp",
    seed: int = 0,
    inputs: str | Path | None = None,
    output: str | Path | None = None,
    device: str = "auto",
    workers: int = 0,
) -> Ranking:
    """Rank the slices or patches to annotate next: those in which a trained model is most uncertain.

    Same as ``autoseg_suggest``. Table and picture go to the folder ``output`` (None: ``suggestions`` in the model's
    folder). ``inputs`` is a folder of new images to rank instead of the training cases. The result's ``.suggestions``
    are sorted, best first; ``.failed`` names the failed cases.
    """
    from autoseg.assist.suggest import Units
    from autoseg.assist.suggest_case import Selection
    from autoseg.assist.suggest_run import SuggestionOptions, suggest_places
    from autoseg.assist.trained_model import trained_model

    space, data = _workspace(root), _dataset(dataset, root)
    model = trained_model(space, data, configuration, name)
    options = SuggestionOptions(
        model / "suggestions" if output is None else Path(output), None if inputs is None else Path(inputs),
        device=device, read_ahead=workers > 0,
    )  # fmt: skip
    return suggest_places(space, data, model, Units(by), Selection(number, method, seed=seed), options)[0]


def simulate_annotation(
    dataset: Dataset | str | Path,
    output: str | Path,
    *,
    root: str | Path = ROOT,
    seed: int = 0,
    drop_classes: int = 0,
    workers: int = 1,
    **style: Any,
) -> Dataset:
    """Copy a dense data set with only a part of it annotated, as people with little time would do.

    Same as ``autoseg_simulate_annotation``, without its pictures. ``style`` are fields of
    :class:`autoseg.simulation.styles.Style`, such as ``scribbles=True``, ``slices=0.1``, ``points=50``.

    Raises ``ConfigError`` if there is nothing to simulate or ``output`` is not empty, ``DatasetError`` if the data set
    is not dense.
    """
    from autoseg.simulation.styles import Style
    from autoseg.simulation.write import annotation_report, check_output, finish, plan_simulation, write_cases

    target = Path(output)
    check_output(target)
    simulation = plan_simulation(
        _dataset(dataset, root), Style(**style), n_dropped=drop_classes, seed=seed, workers=workers
    )
    shares = write_cases(simulation, target, workers=workers)
    return finish(simulation, target, annotation_report(simulation, shares))


def merge_datasets(
    datasets: Sequence[Dataset | str | Path],
    output: str | Path,
    *,
    root: str | Path = ROOT,
    name: str | None = None,
    copy: bool = False,
    workers: int = 1,
) -> Dataset:
    """Merge data sets whose classes may differ; the new dataset.json lists the classes that annotators knew, by case.

    Same as ``autoseg_merge_datasets``. Images are linked; with ``copy`` they are copied.
    """
    from autoseg.interop.merged_files import write_merged
    from autoseg.interop.merging import plan_merger

    merger = plan_merger([_dataset(given, root) for given in datasets], name or Path(output).name)
    for warning in merger.warnings:
        log.warning("%s", warning)
    return write_merged(merger, Path(output), copy=copy, workers=workers)


def _workspace(root: str | Path) -> Workspace:
    from autoseg.core.workspace import Workspace

    return Workspace(Path(root))


def _dataset(given: Dataset | str | Path, root: str | Path) -> Dataset:
    from autoseg.interop.expert_labels import open_dataset

    return open_dataset(given, _workspace(root))


def _assignments(settings: Mapping[str, Any] | None) -> list[str]:
    """Return settings as ``key=value``, as on the command line, so that checks and messages are the same."""
    return [f"{key}={value}" for key, value in (settings or {}).items()]
