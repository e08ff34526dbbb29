"""A trained model, loaded once, that turns images into dense label maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from autoseg.cases.case import Case
from autoseg.cases.layers import Layer, LayerInfo, class_indices, further_inputs, input_channels
from autoseg.core.arrays import Float32Array, LabelMap
from autoseg.core.errors import DatasetError, ModelError
from autoseg.core.geometry import Geometry
from autoseg.core.plan import Configuration, Plan
from autoseg.core.progress import Progress, silent
from autoseg.core.workspace import FoldName
from autoseg.inference.export import decide, probabilities
from autoseg.inference.folder import Inputs, PredictionReport
from autoseg.inference.inputs import header_faults, image_fault
from autoseg.inference.low_resolution import select_windows
from autoseg.inference.model import Model, check_same_classes, load_model, previous_folder
from autoseg.inference.outputs import FurtherOutput
from autoseg.inference.predict_group import predict_group
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.window import Slab, check_window_settings, join_slabs, stream_logits
from autoseg.nn.device import select_device
from autoseg.nn.precision import choose_dtype
from autoseg.preprocessing import Preprocessed, preprocess
from autoseg.sampling.input_channels import with_channels
from autoseg.tasks.affinities import output_offsets
from autoseg.tasks.task import task_of

STEP, FAST_STEP = 0.5, 0.75
"""Largest distance of neighbouring windows as a share of the patch, and that of a fast prediction."""


@dataclass(frozen=True)
class Predictor:
    """A model on a device, with the settings of the sliding window."""

    model: Model
    device: torch.device
    autocast_dtype: torch.dtype | None = None
    """Type for mixed precision; None computes in float32."""
    mirror: bool = True
    """Average over mirrored copies along the axes that the training mirrored."""
    step: float = STEP
    """Largest distance of neighbouring windows as a share of the patch."""
    batch_size: int | None = None
    """Windows per forward pass; None chooses by patch size and device."""
    previous: Predictor | None = None
    """Model of the previous stage of a cascade; it predicts the classes of cases that do not have them as a layer."""
    leaves_out_windows: bool = False
    """Leave out windows without foreground in a low-resolution pass; see :mod:`autoseg.inference.low_resolution`."""

    def __post_init__(self) -> None:
        check_window_settings(self.step, self.batch_size)

    @classmethod
    def load(
        cls,
        model_folder: str | Path,
        folds: Sequence[str | int] | None = None,
        device: str = "auto",
        *,
        checkpoint: str = "final",
        mirror: bool = True,
        step: float | None = None,
        fast: bool = False,
        batch_size: int | None = None,
    ) -> Predictor:
        """Load a model folder; only its ``fold_<k>`` folders with checkpoints are needed.

        The second stage of a cascade also loads the first, from ``default__<its configuration>`` beside the folder: the
        same folds, with all their seeds, so that a case outside the training of one is outside the training of both.

        Parameters
        ----------
        model_folder
            ``ROOT/results/DATASET/<name>__<configuration>``, or a copy of it.
        folds
            Names of folds, each with all its seeds, or of single members (``all_seed2``); None takes every finished
            fold, ``all`` only if no other is finished.
        device
            ``auto``, ``cpu``, ``cuda``, ``cuda:<index>`` or ``mps``.
        checkpoint
            ``"final"`` or ``"best"``; if it is missing, the other one is taken, with a warning.
        mirror, batch_size
            See the fields of the class.
        step
            See the field of the class; None is 0.5, and 0.75 with ``fast``.
        fast
            Do not mirror, whatever ``mirror`` is, take wide steps, and leave out windows without foreground in a
            low-resolution pass: several times faster, slightly less accurate (docs/performance.md).

        Raises
        ------
        ConfigError
            If the device does not exist, or ``checkpoint``, ``step`` or ``batch_size`` is out of range.
        ModelError
            If the folder or a fold is missing, a fold is unfinished or corrupt, or the folds do not belong together.
        """
        mirror = mirror and not fast
        step = (FAST_STEP if fast else STEP) if step is None else step
        check_window_settings(step, batch_size)
        chosen = select_device(device)
        model = load_model(model_folder, folds, chosen, checkpoint)
        stage, previous = previous_folder(model_folder, model.configuration), None
        if stage is not None:
            of_stage = None if folds is None else [*dict.fromkeys(FoldName.parse(str(fold)).fold for fold in folds)]
            previous = cls.load(
                stage,
                of_stage,
                device,
                checkpoint=checkpoint,
                mirror=mirror,
                step=step,
                fast=fast,
                batch_size=batch_size,
            )
            check_same_classes(stage, previous.model, model)
        channels = input_channels(model.plan, model.configuration, model.dataset.labels)
        shape = (1, len(channels), *model.configuration.patch_size)
        dtype = choose_dtype(lambda: model.networks[0], shape, chosen)
        return cls(model, chosen, dtype, mirror, step, batch_size, previous, fast)

    def predict_array(self, image: Float32Array, geometry: Geometry) -> LabelMap:
        """Return the label map (z, y, x) of an image (C, z, y, x) float32 as read from its file.

        A 2-D image has one slice and ``geometry.ndim == 2``. An image whose geometry has a direction is brought to the
        axis order of the training data, and the label map back; without a direction it is assumed to be in that order.
        Raises ``DatasetError`` if the image does not fit the model (channels, axes, spacing) or holds NaN or infinite
        values.
        """
        return self.predict_case(Case("image", image, geometry))

    def predict_case(self, case: Case) -> LabelMap:
        """Return the label map (z, y, x) of a case, in the file's axes; its target is not used."""
        return PredictorGroup((self,)).label_map((self.prepare(case),))

    def predict_probabilities(self, image: Float32Array, geometry: Geometry) -> tuple[LabelMap, Float32Array]:
        """Return the label map (z, y, x) and the probability (H, z, y, x) float32 in [0, 1] of each head.

        Of the task instances the label map is that of classes.
        """
        prepared = self.prepare(Case("image", image, geometry))
        logits, labels = self.logits(prepared.image), self.model.dataset.labels
        return decide(logits, prepared.record, labels), probabilities(logits, prepared.record, labels)

    def predict_files(
        self,
        inputs: Inputs,
        output_folder: str | Path,
        *,
        overwrite: bool = False,
        save_probabilities: bool = False,
        save_uncertainty: bool = False,
        predict_quality: bool = True,
        further: Sequence[FurtherOutput] = (),
        workers: int = 1,
        progress: Progress = silent,
    ) -> PredictionReport:
        """Predict files and write ``<case><ending>`` for each; see :func:`~.predict_group.predict_group`."""
        return predict_group(
            PredictorGroup((self,)), inputs, Path(output_folder), overwrite=overwrite,
            save_probabilities=save_probabilities, save_uncertainty=save_uncertainty, predict_quality=predict_quality,
            further=further, workers=workers, progress=progress,
        )  # fmt: skip

    @property
    def is_mirrored(self) -> bool:
        """Whether predictions are means over mirrored copies of the image."""
        return self.mirror and bool(self.model.mirror_axes)

    def prepare(self, case: Case) -> Preprocessed:
        """Check and preprocess a case (crop, normalise, resample), exactly as for training.

        The resulting image has all channels of the network: after its own the classes of the previous stage of a
        cascade, from the layer ``cases.layers.PREVIOUS`` of the case if it has one, otherwise predicted. The target is
        not used.
        """
        plan, configuration = self.model.plan, self.model.configuration
        _check_case(case, plan, configuration)
        inputs = further_inputs(configuration, self.model.dataset.labels.n_classes)
        layers = tuple(_layer(info, case, self.model, self.previous) for info in inputs)
        prepared = preprocess(replace(case, target=None, layers=layers), plan, configuration, unknown=None)
        return replace(prepared, image=_with_layers(prepared.image, prepared.layers))

    def slabs(self, image: Float32Array, case: str = "image", *, separate: bool = False) -> Iterator[Slab]:
        """Yield the logits (O, planes, y, x) of a preprocessed image (C, *S) slab by slab; see ``stream_logits``.

        ``case`` is its name in the log. With ``separate`` the logits of each member follow as O more outputs.
        """
        model, labels = self.model, self.model.dataset.labels
        windows = partial(
            stream_logits,
            model.networks,
            configuration=model.configuration,
            mirror_axes=model.mirror_axes if self.mirror else (),
            step=self.step,
            device=self.device,
            batch_size=self.batch_size,
            autocast_dtype=self.autocast_dtype,
            offsets=output_offsets(labels),
        )
        if labels.targets or not self.leaves_out_windows:  # a regression has a number everywhere, and no background
            return windows(image, separate=separate)
        task = task_of(labels)
        selection = select_windows(image, model.configuration, task, self.step, windows, case=case)
        return windows(image, selection=selection, separate=separate)

    def logits(self, image: Float32Array) -> Float32Array:
        """Return the logits (O, *S) float32 of a preprocessed image (C, *S)."""
        return join_slabs(self.slabs(image), image.shape[1])


def _check_case(case: Case, plan: Plan, configuration: Configuration) -> None:
    """Raise ``DatasetError`` with every reason why a case cannot be predicted with the plan."""
    where = f"case {case.name}"
    faults = list(header_faults(where, case.image.shape, case.geometry, plan, configuration))
    broken = image_fault(where, case.image)
    if broken is not None:
        faults.append(broken)
    if faults:
        raise DatasetError(faults)


def _layer(info: LayerInfo, case: Case, model: Model, previous: Predictor | None) -> Layer:
    """Return a further input of a case in its file's axes: as given, otherwise predicted by the previous stage."""
    given = next((layer for layer in case.layers if layer.info.name == info.name), None)
    if given is not None:
        return given
    if previous is None:
        raise ModelError(
            f"case {case.name}: found no layer {info.name!r}, expected the classes of "
            f"{model.configuration.previous_stage}. Load the model with Predictor.load."
        )
    values = previous.predict_case(replace(case, target=None, layers=(), box=None))  # of its context, too
    return Layer(info, class_indices(values, previous.model.dataset.labels))


def _with_layers(image: Float32Array, layers: Sequence[Layer]) -> Float32Array:
    """Append the channels of layers (C, *S) or (*S) to an image (C, *S), as for training."""
    if not layers:
        return image
    tensors = {layer.info.name: torch.from_numpy(layer.array)[None] for layer in layers}
    with_all = with_channels(torch.from_numpy(image)[None], tensors, [layer.info for layer in layers])
    joined: Float32Array = with_all[0].numpy()
    return joined
