"""Label maps of pairs of models, each case predicted by the folds that left it out.

Every model predicts a case once, whatever the number of pairs. Probabilities lie on the disk for one case at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path

from autoseg.assist.trained_folds import TrainedModel
from autoseg.core.errors import AutosegError, ModelError
from autoseg.core.progress import Progress, silent
from autoseg.core.workspace import FoldName
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import class_differences
from autoseg.evaluation.ensemble_folders import HeadDecider, combine
from autoseg.inference import Predictor
from autoseg.inference.blockwise import read_box
from autoseg.inference.folder import predict_files, read_files
from autoseg.inference.outputs import FurtherOutput
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.saved_probabilities import SavedProbabilities
from autoseg.io.images import read_labels, write_labels
from autoseg.io.probabilities import PROBABILITIES_ENDING

SEPARATOR = "+"
"""Between the names of the models of a pair, in the name of its folder."""
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PairPredictions:
    """The pairs of some models, and where their label maps lie."""

    models: tuple[TrainedModel, ...]
    folder: Path
    """Folder with a folder ``<model>+<model>`` for each pair."""
    boxes: frozenset[str] = frozenset()
    """Cases that are boxes of volumes too large for memory, to be predicted as parts of them."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Names of the models of each pair."""
        return tuple(combinations((model.name for model in self.models), 2))

    def path(self, pair: Pair, case: str) -> Path:
        """Return the label map of a case, whether it is there or not; its ending is that of the first model's."""
        first = next(model for model in self.models if model.name == pair[0])
        return self.folder / SEPARATOR.join(pair) / first.predictions[case].name

    def outdated(self, case: str) -> tuple[Pair, ...]:
        """Return the pairs whose label map of a case is missing, or older than weights or prediction of a model."""
        trained = {model.name: model.changed(case) for model in self.models}
        return tuple(
            pair
            for pair in self.pairs
            if not self.path(pair, case).is_file()
            or self.path(pair, case).stat().st_mtime <= max(trained[name] for name in pair)
        )


def predict_pairs(
    predictions: PairPredictions,
    dataset: Dataset,
    *,
    device: str = "auto",
    workers: int = 1,
    progress: Progress = silent,
) -> None:
    """Predict the cases whose label maps of pairs are missing or outdated, and write them, each atomically.

    Raises
    ------
    ModelError
        If the models have other classes than the data set.
    AutosegError
        If a case cannot be predicted.
    """
    cases = {case: predictions.outdated(case) for case in predictions.models[0].fold_of}
    todo = [case for case, pairs in cases.items() if pairs]

    def folds(case: str) -> tuple[str, ...]:
        return tuple(model.fold_of[case] for model in predictions.models)

    done = 0
    for members, group in groupby(sorted(todo, key=lambda case: (folds(case), case)), key=folds):
        predictors = {
            model.name: load_fold(model, fold, dataset, device)
            for model, fold in zip(predictions.models, members, strict=True)
        }
        for case in group:
            _predict_case(predictions, cases[case], dataset.case(case), predictors, workers)
            done += 1
            progress(done, len(todo), case)


def load_fold(model: TrainedModel, fold: str, dataset: Dataset, device: str) -> Predictor:
    """Return the network that predicted the validation of a fold, without further seeds.

    Raises ``ModelError`` if its classes are not those of the data set.
    """
    predictor = Predictor.load(model.folder, [FoldName(fold).alone], device)
    different = class_differences(predictor.model.dataset.labels, dataset.labels)
    if different:
        raise ModelError(
            f"{model.folder}: found a model with other {', '.join(different)} than {dataset.folder}, expected the same "
            "classes. Train it again."
        )
    return predictor


def _predict_case(
    predictions: PairPredictions,
    pairs: Sequence[Pair],
    files: CaseFiles,
    predictors: Mapping[str, Predictor],
    workers: int,
) -> None:
    """Write the label maps of one case."""
    needed = {name for pair in pairs for name in pair}
    predictions.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=predictions.folder, prefix=".probabilities_") as temporary:
        saved = {
            model.name: Path(temporary) / model.name / model.predictions[files.name].name
            for model in predictions.models
            if model.name in needed
        }
        for name, label_map in saved.items():
            predict_left_out(
                predictors[name], files, label_map.parent, predictions.boxes, further=[SavedProbabilities()],
                workers=workers,
            )  # fmt: skip
        for pair in pairs:
            labels = predictors[pair[0]].model.dataset.labels
            before, geometry = read_labels(saved[pair[0]])
            decider = HeadDecider(labels, before.shape)
            sources = [saved[name].parent / f"{files.name}{PROBABILITIES_ENDING}" for name in pair]
            for values in combine(sources, [range(labels.n_heads)] * 2, (0.5, 0.5)):
                decider.add(values)
            write_labels(predictions.path(pair, files.name), decider.label_map(), geometry)


def predict_left_out(
    predictor: Predictor,
    files: CaseFiles,
    folder: Path,
    boxes: Collection[str],
    *,
    further: Sequence[FurtherOutput] = (),
    workers: int = 1,
) -> None:
    """Predict a case that a fold left out into a folder; those named in ``boxes`` as parts of their volumes.

    Raises ``AutosegError`` if it cannot be predicted.
    """
    read = read_box if files.name in boxes else read_files
    group, images = PredictorGroup((predictor,)), {files.name: files.images}
    report = predict_files(group, images, folder, overwrite=True, further=further, read=read, workers=workers)
    if report.failed:
        raise AutosegError(f"case {files.name}: {report.failed[files.name]}")
