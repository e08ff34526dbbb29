"""Application of temperatures, one per class or region, to probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoseg.core.arrays import Float32Array

_SMALLEST, _SMALLEST_COMPLEMENT = 2.0**-126, 2.0**-25
"""Probabilities below these, and differences from 1, are rounding of float32."""


def log_scores(probabilities: Tensor, *, is_exclusive: bool) -> Tensor:
    """Return what temperatures divide: of classes the logarithm of probabilities (H, *S), of regions the log-odds.

    Unlike logits of a softmax, which a constant may be added to, both follow from the probabilities alone.
    """
    logarithm = probabilities.clamp_min(_SMALLEST).log()
    if is_exclusive:
        return logarithm
    return logarithm - (1 - probabilities).clamp_min(_SMALLEST_COMPLEMENT).log()


def tempered(scores: Tensor, temperatures: Tensor, *, is_exclusive: bool) -> Tensor:
    r"""Return probabilities (H, *S) from :func:`log_scores` (H, *S) and the temperatures (H,) of the heads.

    .. math:: q_c = p_c^{1/T_c} / \sum_k p_k^{1/T_k} \quad\text{(classes)}, \qquad
              q_r = \sigma(\operatorname{logit}(p_r) / T_r) \quad\text{(regions)}

    Classes remain a distribution. With one temperature for all, this is the softmax of logits divided by it.
    Source: Guo et al. 2017 (arXiv 1706.04599) for one temperature. Several are the diagonal of the linear map of
    log-probabilities in Kull et al. 2019 (arXiv 1910.12656), without constants, so that a rare class is not raised or
    lowered everywhere.
    """
    scaled = scores / temperatures.reshape(-1, *[1] * (scores.ndim - 1))
    return scaled.softmax(dim=0) if is_exclusive else scaled.sigmoid()


def calibrated(probabilities: Float32Array, temperatures: Sequence[float], *, is_exclusive: bool) -> Float32Array:
    """Return the calibrated probabilities (H, *S) float32 of heads (H, *S); see :func:`tempered`.

    With all H temperatures at 1 they are ``probabilities`` themselves.
    """
    if all(temperature == 1 for temperature in temperatures):
        return probabilities
    scores = log_scores(torch.from_numpy(probabilities), is_exclusive=is_exclusive)
    values: Float32Array = tempered(scores, torch.tensor(temperatures), is_exclusive=is_exclusive).numpy()
    return values
