"""Fit of temperatures, one per class or region, to sampled voxels, and the calibration error before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize
from torch import Tensor

from autoseg.core.arrays import BoolArray
from autoseg.core.findings import counted
from autoseg.core.means import mean_known
from autoseg.dataset.labels import Labels
from autoseg.inference.calibration import Basis, HeadTemperature, Temperature
from autoseg.inference.calibration_sample import CaseSample
from autoseg.inference.temperature import tempered
from autoseg.tasks.task import task_of

N_BINS = 15
"""Bins of equal width of the expected calibration error."""
LOWEST, HIGHEST = 0.25, 8.0
"""Limits of a temperature, so that voxels that are all predicted rightly do not make it 0."""
MIN_VOXELS, MIN_CASES = 200, 2
"""Sampled voxels of a class, and cases that hold them, below which its temperature is not fitted."""


def expected_calibration_error(
    probabilities: NDArray[np.floating], is_right: BoolArray, weights: NDArray[np.floating]
) -> float | None:
    r"""Return the expected calibration error, 0 to 1; None without weight.

    .. math:: \sum_b \frac{W_b}{W} \left| \bar p_b - \bar y_b \right|

    over 15 bins b of equal width of the probability, with the weighted means of probability and outcome of each bin.
    Source: Guo et al. 2017 (arXiv 1706.04599), section 2.

    Parameters
    ----------
    probabilities, is_right, weights
        (n,): predicted probability, whether it came true, and number of voxels that an item stands for.
    """
    total = float(weights.sum())
    if total <= 0:
        return None
    bins = np.minimum((probabilities * N_BINS).astype(np.intp), N_BINS - 1)
    gaps = np.bincount(bins, weights * (probabilities - is_right), N_BINS)
    return float(np.abs(gaps).sum() / total)


def fit_temperature(
    samples: Sequence[CaseSample], labels: Labels, *, folds: Sequence[str] = (), basis: Basis = "dense"
) -> Temperature:
    """Return the temperatures with the highest likelihood of the annotation of sampled voxels.

    Minimised is the mean of ``-log sum_{c in A} q_c`` over voxels with label sets A (classes), or of the cross entropy
    summed over the regions that A decides; see :func:`tempered` for q. In 1/T both are smooth, and convex where sets
    are single classes. A head with too few voxels that certainly belong to it keeps 1, with the reason. Without any
    sample all heads do.

    Parameters
    ----------
    samples
        Voxels of each case, predicted by a fold that was not trained on it; may be empty.
    folds, basis
        For the record in the result.
    """
    heads = [head.name for head in labels.heads]
    data = _joined(samples, len(heads), is_exclusive=task_of(labels).is_exclusive)
    n_voxels = (data.states > 0).sum(dim=1).tolist()
    n_cases = np.sum([(sample.states > 0).any(axis=0) for sample in samples], axis=0, initial=0) + np.zeros(len(heads))
    reasons = [_reason(voxels, int(cases)) for voxels, cases in zip(n_voxels, n_cases, strict=True)]
    before = torch.ones(len(heads), dtype=torch.float64)
    after = _fit(data, [reason is None for reason in reasons])
    errors = [_errors(data, temperatures) for temperatures in (before, after)]
    values = [
        HeadTemperature(
            name=name, temperature=float(after[row]), reason=reasons[row], n_voxels=n_voxels[row],
            n_cases=int(n_cases[row]), ece_before=errors[0].by_head[row], ece_after=errors[1].by_head[row],
        )
        for row, name in enumerate(heads)
    ]  # fmt: skip
    return Temperature(
        heads=tuple(values), basis=basis, folds=tuple(folds), n_cases=len(samples), n_voxels=len(data.weights),
        log_loss_before=errors[0].log_loss, log_loss_after=errors[1].log_loss,
        ece_before=errors[0].mean, ece_after=errors[1].mean,
        confidence_ece_before=errors[0].confidence, confidence_ece_after=errors[1].confidence,
    )  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class _Data:
    """Sampled voxels of all cases."""

    scores: Tensor
    """(H, n) float64: :func:`log_scores`."""
    states: Tensor
    """(H, n) int8, as in :class:`CaseSample`."""
    weights: Tensor
    """(n,) float64."""
    is_exclusive: bool

    def losses(self, temperatures: Tensor) -> Tensor:
        """Return the negative log-likelihood of the annotation of each voxel, (n,)."""
        scaled = self.scores / temperatures[:, None]
        if self.is_exclusive:
            return scaled.logsumexp(dim=0) - scaled.masked_fill(self.states < 0, -torch.inf).logsumexp(dim=0)
        wrong = torch.nn.functional.softplus(-scaled * self.states)
        return torch.where(self.states != 0, wrong, 0.0).sum(dim=0)


@dataclass(frozen=True, slots=True)
class _Errors:
    by_head: list[float | None]
    confidence: float | None
    log_loss: float | None

    @property
    def mean(self) -> float | None:
        return mean_known(self.by_head)


def _joined(samples: Sequence[CaseSample], n_heads: int, *, is_exclusive: bool) -> _Data:
    """Return the voxels of all samples as one; scores of classes are normalised, which float16 has not kept exactly."""
    parts = [torch.from_numpy(sample.scores.astype(np.float64)) for sample in samples]
    scores = torch.cat([torch.empty((0, n_heads), dtype=torch.float64), *parts]).T
    states = torch.cat([torch.empty((0, n_heads), dtype=torch.int8), *(torch.from_numpy(s.states) for s in samples)]).T
    weights = torch.cat([torch.empty(0), *(torch.from_numpy(sample.weights) for sample in samples)]).double()
    return _Data(scores.log_softmax(dim=0) if is_exclusive else scores, states, weights, is_exclusive)


def _reason(n_voxels: int, n_cases: int) -> str | None:
    """Return why there is too little to fit a temperature; None if there is enough."""
    if n_voxels >= MIN_VOXELS and n_cases >= MIN_CASES:
        return None
    return (
        f"found {counted(n_voxels, 'sampled voxel')} that certainly belong to it, in {counted(n_cases, 'case')}, "
        f"expected at least {MIN_VOXELS} in {MIN_CASES}"
    )


def _fit(data: _Data, is_free: Sequence[bool]) -> Tensor:
    """Return the temperatures (H,) float64 with the lowest mean loss; those that are not free are 1."""
    if not any(is_free):
        return torch.ones(len(is_free), dtype=torch.float64)
    total = data.weights.sum()

    def loss(inverse: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        factors = torch.from_numpy(inverse).requires_grad_()
        value = (data.losses(1 / factors) * data.weights).sum() / total
        (gradient,) = torch.autograd.grad(value, factors)
        return value.item(), gradient.numpy()

    low, high = (np.where(is_free, bound, 1.0) for bound in (1 / HIGHEST, 1 / LOWEST))
    found = minimize(loss, np.ones(len(is_free)), jac=True, method="L-BFGS-B", bounds=Bounds(low, high))
    return torch.from_numpy(1 / found.x)


def _errors(data: _Data, temperatures: Tensor) -> _Errors:
    """Return calibration errors and loss with ``temperatures`` (H,); None where there is no voxel."""
    if not len(data.weights):
        return _Errors([None] * len(temperatures), None, None)
    probabilities = tempered(data.scores, temperatures, is_exclusive=data.is_exclusive)
    weights, states = data.weights.numpy(), data.states.numpy()
    by_head = [
        expected_calibration_error(own[known], state[known] > 0, weights[known])
        for own, state in zip(probabilities.numpy(), states, strict=True)
        for known in [state != 0]
    ]
    loss = float((data.losses(temperatures) * data.weights).sum() / data.weights.sum())
    if not data.is_exclusive:
        return _Errors(by_head, None, loss)
    confidence, best = probabilities.max(dim=0)
    outcome = np.take_along_axis(states, best.numpy()[None], axis=0)[0]
    known = outcome != 0
    top = expected_calibration_error(confidence.numpy()[known], outcome[known] > 0, weights[known])
    return _Errors(by_head, top, loss)
