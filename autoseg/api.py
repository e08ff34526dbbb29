"""What the commands do, as functions: each takes a data set, does one step, and returns its result.

Everything is imported when a function is called, so that ``import autoseg`` is quick. ``workers`` are processes: with
more than 1 (in :func:`train`: 0), a script must guard its calls with ``if __name__ == "__main__":``. Nothing is
printed; warnings go to the logger ``autoseg``. Mistakes of the user raise :class:`autoseg.core.errors.UserError`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from autoseg.assist.complete import CompletionReport
    from autoseg.assist.suggest import Ranking
    from autoseg.core.plan import Plan
    from autoseg.core.workspace import Workspace
    from autoseg.dataset.dataset import Dataset
    from autoseg.evaluation.summary import Summary
    from autoseg.inference.folder import PredictionReport
    from autoseg.inference.predictor import Predictor
    from autoseg.planning.check_report import CheckReport
    from autoseg.sampling.patch_view import PatchView

log = logging.getLogger(__name__)

ROOT = "autoseg_workspace"
"""Workspace folder where none is given; unlike the commands, functions do not read $AUTOSEG_ROOT."""


@dataclass(frozen=True, slots=True)
class TrainedFold:
    """How :func:`train` ended."""

    folder: Path
    """``ROOT/results/DATASET/<name>__<configuration>/fold_<k>``: checkpoints, history, pictures, validation."""
    summary: Summary
    """Scores of the validation cases; without cases where the fold has none."""

    @property
    def model_folder(self) -> Path:
        """Folder of all folds, for :func:`predict`."""
        return self.folder.parent


def check(dataset: Dataset | str | Path, *, root: str | Path = ROOT, workers: int = 1) -> CheckReport:
    """Read every file of a data set and report all faults, and how much is annotated.

    As ``autoseg_plan_and_preprocess DATASET --check-only``. Nothing is written, and no fault raises; call
    ``.raise_if_faulty()`` on the report for that. A data set given by its path may have faults in its dataset.json.

    Parameters
    ----------
    dataset
        A data set, or its folder, its name below ``root/raw``, or nnU-Net's number.
    root
        Workspace folder.
    workers
        Processes; 1 reads in this one.

    Raises ``DatasetError`` if there is no dataset.json, or it is no JSON.
    """
    from autoseg.dataset.dataset import Dataset
    from autoseg.planning.check_dataset import check_dataset

    space = _workspace(root)
    if isinstance(dataset, Dataset):
        return check_dataset(dataset, (), space.preprocessed(dataset.name), workers)
    described, faults = Dataset.examine(space.find_dataset(str(dataset)))
    return check_dataset(described, faults, space.preprocessed(described.name), workers)


def plan(
    dataset: Dataset | str | Path,
    *,
    root: str | Path = ROOT,
    planner: str | None = None,
    gpu_memory_gb: float | None = None,
    replan: bool = False,
    settings: Sequence[str] = (),
    workers: int = 1,
) -> Plan:
    """Check and measure the files, decide everything that follows from them, and split the cases into folds.

    As the first half of ``autoseg_plan_and_preprocess``; writes plans.json, the fingerprint and the splits to
    ``root/preprocessed/DATASET``. A plan that is there is kept, with what was edited in plans.json; it is made anew for
    another planner, other memory or another network, or with ``replan``, which gives edits up.

    ``planner`` is ``default``, ``resenc_m``, ``resenc_l``, ``resenc_xl`` or ``small``; it and ``gpu_memory_gb`` are as
    before where they are None. ``settings`` are options of the network, as in ``["network.levels=4"]``; what they do
    not name is as before. ``dataset``, ``root`` and ``workers`` as in :func:`check`.

    Raises ``DatasetError`` with every fault of the files, ``PlanError`` if there is no such planner or an edit cannot
    work, ``ConfigError`` if edits would be lost without ``replan``, or an option is wrong.
    """
    from autoseg.planning.plan_dataset import plan_dataset
    from autoseg.planning.plan_edits import PlanningOptions

    options = PlanningOptions(planner, gpu_memory_gb, replan, settings)
    return plan_dataset(_dataset(dataset, root), _workspace(root), options, workers).plan


def preprocess(
    dataset: Dataset | str | Path,
    *,
    root: str | Path = ROOT,
    configurations: Sequence[str] | None = None,
    workers: int = 1,
) -> tuple[str, ...]:
    """Write the caches that training reads, by the plan in the workspace; return the configurations.

    As the second half of ``autoseg_plan_and_preprocess``. Cases that are cached and have not changed are kept.
    ``configurations`` are names as ``2d``, ``3d_fullres``; None takes those of before, else all but the cascade.

    Raises ``PlanError`` if there is no plan yet, or it has no such configuration; ``AutosegError`` with the cases that
    cannot be preprocessed, the others are cached.
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
    """Draw training patches, as the network would get them, into the PNG file ``output``; return them.

    As ``autoseg_preview_batches``; ``settings`` as in :func:`train` (``augmentation="none"``, ``mirror=False`` show the
    same places unchanged). Needs a preprocessed data set.
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

    As ``autoseg_train``, except that Ctrl-C raises ``KeyboardInterrupt``: go on from the last epoch with ``resume``.

    Parameters
    ----------
    fold
        Number from 0, or ``"all"`` to train on every case.
    settings
        Fields of :class:`autoseg.training.config.TrainingConfig`, as ``{"batch_size": 4, "optimizer": "sgd"}``.
    workers
        Processes that build batches ahead; 0 builds them in this one. The result is the same.
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
    from autoseg.training.prepare import check_folder, prepare_fold
    from autoseg.training.run_config import RunOptions
    from autoseg.training.validation import validate_fold

    options = RunOptions(
        str(fold), configuration, name, device, epochs, iterations, max_runtime_s, seed,
        None if pretrained is None else Path(pretrained), _assignments(settings), workers,
    )  # fmt: skip
    request = prepare_fold(_workspace(root), _dataset(dataset, root), options)
    is_resumed = check_folder(request.folder, resume=resume, overwrite=overwrite)
    train_fold(request, resume=is_resumed, on_steps=on_steps)
    return TrainedFold(request.folder, validate_fold(request, workers=max(workers, 1)))


def predict(
    inputs: str | Path | Sequence[Sequence[str | Path]] | Mapping[str, Sequence[str | Path]],
    output: str | Path,
    model: str | Path | Predictor,
    *,
    folds: Sequence[int | str] | None = None,
    device: str = "auto",
    mirror: bool = True,
    save_probabilities: bool = False,
    overwrite: bool = False,
    workers: int = 1,
) -> PredictionReport:
    """Predict images with the mean of the trained folds, and write ``<case><ending>`` to the folder ``output``.

    As ``autoseg_predict``. For arrays instead of files use :class:`autoseg.Predictor`.

    Parameters
    ----------
    inputs
        Folder of images (``<case>_0000<ending>`` ...), a list of the channel files of each case, or case -> files.
    model
        Model folder, or a loaded predictor (then ``folds``, ``device`` and ``mirror`` are its own).

    Returns
    -------
    Which cases were done, were there already, or failed and why; a case that fails does not stop the others.
    """
    from autoseg.inference.predictor import Predictor

    loaded = model if isinstance(model, Predictor) else Predictor.load(model, folds, device, mirror=mirror)
    return loaded.predict_files(
        inputs, output, overwrite=overwrite, save_probabilities=save_probabilities, workers=workers
    )


def evaluate(
    reference: str | Path,
    predictions: str | Path,
    dataset_json: str | Path | Mapping[str, Any] | Dataset | None = None,
    *,
    output: str | Path | None = None,
    against: str | Path | None = None,
    strict: bool = False,
    workers: int = 1,
) -> Summary:
    """Score a folder of predictions where the references decide; ``output`` also writes the summary as JSON.

    As ``autoseg_evaluate_folder``; parameters and errors: :func:`autoseg.evaluation.evaluate_folder`.
    """
    from autoseg.evaluation import evaluate_folder

    summary = evaluate_folder(reference, predictions, dataset_json, against=against, workers=workers, strict=strict)
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
    """Write a new data set to ``output``: what was annotated stays, the rest is predicted by folds that left it out.

    As ``autoseg_complete``. Needs every fold trained, unless ``seen`` allows a model that trained on the case.
    ``review`` lists where the model disagrees with the annotation. A case that fails does not stop the others.
    """
    from autoseg.assist.complete import CompletionOptions
    from autoseg.assist.complete_run import complete_cases
    from autoseg.assist.trained_model import trained_model

    space, data = _workspace(root), _dataset(dataset, root)
    options = CompletionOptions(device, mirror, review, overwrite, workers=workers)
    return complete_cases(
        space, data, Path(output), trained_model(space, data, configuration, name), options, seen=seen
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
    """Rank what to annotate next: slices or patches in which a trained model is most unsure.

    As ``autoseg_suggest``; table and picture go to ``output`` (None: ``suggestions`` in the model's folder). ``inputs``
    is a folder of new images to rank instead. ``.suggestions`` are in order, ``.failed`` says which cases failed.
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
    """Copy a dense data set with only part of it annotated, as people with little time would have drawn it.

    As ``autoseg_simulate_annotation``, without its pictures; ``style`` are fields of
    :class:`autoseg.simulation.styles.Style`, as ``scribbles=True``, ``slices=0.1``, ``points=50``.

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
    """Make one data set of several whose classes may differ; each case says which classes its annotators knew.

    As ``autoseg_merge_datasets``. Images are linked unless ``copy``.
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
    from autoseg.dataset.dataset import Dataset

    return given if isinstance(given, Dataset) else Dataset.load(_workspace(root).find_dataset(str(given)))


def _assignments(settings: Mapping[str, Any] | None) -> list[str]:
    """Return settings as the command line writes them, for one set of checks and messages."""
    return [f"{key}={value}" for key, value in (settings or {}).items()]
