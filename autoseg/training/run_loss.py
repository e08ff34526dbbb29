"""The loss of a run: that of the task of its data set, with the weights that its configuration gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from autoseg.core.errors import ConfigError
from autoseg.core.plan import Configuration
from autoseg.dataset.labels import Labels
from autoseg.nn.losses.registry import named_loss, named_number_loss
from autoseg.training.class_weights import output_weights
from autoseg.training.evidence.loss import EvidenceLoss, NumbersLoss
from autoseg.training.evidence.source import Evidence
from autoseg.training.objective import AnyObjective, NumberObjective
from autoseg.training.request import FoldRequest


def run_weights(request: FoldRequest, objective: AnyObjective) -> tuple[float, ...] | None:
    """Return the weight of each output in the cross entropy, (O,); None if all are alike.

    Raises ``ConfigError`` as :func:`autoseg.training.class_weights.output_weights`, and if weights are set for a
    regression.
    """
    config = request.config
    if not isinstance(objective, NumberObjective):
        return output_weights(config.class_weights, config.loss, objective.task, request.train_entries)
    if config.class_weights is not None:
        raise ConfigError(
            "class_weights: found weights for a regression, which has no classes. Set class_weights=none."
        )
    return None


def run_loss(
    request: FoldRequest,
    objective: AnyObjective,
    weights: Sequence[float] | None,
    strides: Sequence[Sequence[int]] | None,
    device: torch.device,
) -> Callable[[list[Tensor], Evidence], Tensor]:
    """Return the loss of a run.

    Parameters
    ----------
    weights
        Those of :func:`run_weights`.
    strides
        Strides of the outputs, for deep supervision; None without it.
    device
        Where logits will lie.

    Raises
    ------
    ConfigError
        If there is no such loss, or a user's loss fails when it is tried, or no patch holds a pair of voxels at the
        offset of an affinity.
    """
    config, n_outputs = request.config, len(objective.task.outputs)
    n_dims = request.configuration.topology.n_dims
    _check_offsets(objective.labels, request.configuration)
    if isinstance(objective, NumberObjective):
        loss = named_number_loss(config.loss, request.ranks.sum, n_outputs=n_outputs, n_dims=n_dims, device=device)
        return NumbersLoss(loss, strides)
    of_sets = named_loss(
        config.loss,
        objective.regions,
        request.configuration.batch_dice,
        request.ranks.sum,
        n_outputs=n_outputs,
        n_dims=n_dims,
        weights=None if weights is None else torch.tensor(weights, device=device),
        device=device,
    )
    return EvidenceLoss(of_sets, strides, request.dataset.labels.unknown)


def _check_offsets(labels: Labels, configuration: Configuration) -> None:
    """Raise ``ConfigError`` if no patch holds a pair of voxels at an offset, of which nothing could then be learnt."""
    offsets = [] if labels.instances is None else [list(offset) for offset in labels.instances.offsets]
    edges = configuration.patch_size
    across = [offset for offset in offsets if offset[0]]
    if len(edges) == 2 and across:
        raise ConfigError(
            f"configuration {configuration.name}: found affinities {across[0]} in dataset.json, expected offsets "
            "within a slice, which start with 0, since a patch is one slice. Remove the others, or train a 3-D "
            "configuration with -c 3d_fullres."
        )
    for offset in offsets:
        if any(abs(step) >= edge for step, edge in zip(offset[-len(edges) :], edges, strict=True)):
            raise ConfigError(
                f"configuration {configuration.name}: found affinities {offset} in dataset.json, expected offsets "
                f"shorter than the patch of {' x '.join(map(str, edges))} voxels. Write a shorter one."
            )
