"""The plan of a data set that has the networks of a trained model, so that the model's weights fit."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from autoseg.core.errors import PlanError
from autoseg.core.findings import counted, listed
from autoseg.core.fingerprint import Fingerprint, IntensityProperties
from autoseg.core.plan import Configuration, Plan
from autoseg.dataset.dataset import Dataset
from autoseg.planning.planner import plan
from autoseg.planning.target_spacing import median_resampled_shape

log = logging.getLogger(__name__)


def plan_like(model: Plan, dataset: Dataset, fingerprint: Fingerprint) -> Plan:
    """Return the plan of a data set with spacing, patch, batch, normalisation and network of a model.

    From the data set come: median shapes, the voxel order, the order of axes (the coarsest first), whether images are
    cropped, and intensities. CT normalisation takes the model's intensities instead, since its weights know them.
    Channels go by name if all names are the same, otherwise in order. Of the configurations of the model, those are
    taken that the data can have: 2d alone for slices.

    Raises
    ------
    PlanError
        If the number of channels differs, or the model has no configuration for such data.
    """
    if len(model.channel_names) != len(dataset.channels):
        raise PlanError(
            f"--plan-of: the model was trained on {counted(len(model.channel_names), 'channel')} "
            f"({listed(model.channel_names)}), but {dataset.name} has {len(dataset.channels)} "
            f"({listed(dataset.channels)}). Take a model with as many channels, or plan without --plan-of: "
            "--pretrained adapts the first convolution if the rest of the network is the same."
        )
    own = plan(dataset, fingerprint)
    has_slices_only = list(own.configurations) == ["2d"]
    usable = [item for item in model.configurations.values() if item.is_2d or not has_slices_only]
    if not usable:
        raise PlanError(
            f"--plan-of: the model has {listed(model.configurations)}, which need volumes, but the cases of "
            f"{dataset.name} are single slices. Take a model with a 2-D network, or leave --plan-of out."
        )
    order = _channel_order(dataset.channels, model.channel_names)
    if order == list(range(len(order))) and dataset.channels != model.channel_names:
        log.warning(
            "the channels are %s, those of the model %s: taken in order", listed(dataset.channels),
            listed(model.channel_names),
        )  # fmt: skip
    configurations = [_fitted(item, own, fingerprint, order) for item in usable]
    is_ct = ["ct" in (item.normalization[channel] for item in configurations) for channel in range(len(order))]
    intensities: list[IntensityProperties] = [
        model.intensities[theirs] if is_ct[channel] else own.intensities[channel]
        for channel, theirs in enumerate(order)
    ]
    return own.model_copy(
        update={
            "planner": model.planner,
            "intensities": tuple(intensities),
            "configurations": {item.name: item for item in configurations},
        }
    )


def _channel_order(own: Sequence[str], given: Sequence[str]) -> list[int]:
    """Return for each own channel the index of the model's: by name if all names are the same, otherwise in order."""
    mine, theirs = ([name.casefold() for name in names] for names in (own, given))
    return [theirs.index(name) for name in mine] if sorted(mine) == sorted(theirs) else list(range(len(mine)))


def _fitted(configuration: Configuration, own: Plan, fingerprint: Fingerprint, order: Sequence[int]) -> Configuration:
    """Return a configuration of the model with channels in ``order``, and the median shape of the data at its spacing.

    2-D: between slices, the spacing is that of each case.
    """
    forward = list(own.transpose_forward)
    spacings = np.array(fingerprint.spacings, dtype=np.float64)[:, forward]
    shapes = np.array(fingerprint.shapes_after_crop, dtype=np.float64)[:, forward]
    n_axes = len(configuration.spacing)
    target = np.array([*[1.0] * (3 - n_axes), *configuration.spacing])
    shape = median_resampled_shape(spacings, shapes, target)[3 - n_axes :]
    return configuration.model_copy(
        update={
            "median_shape": tuple(float(edge) for edge in shape),
            "normalization": tuple(configuration.normalization[channel] for channel in order),
            "use_mask_for_norm": tuple(configuration.use_mask_for_norm[channel] for channel in order),
        }
    )
