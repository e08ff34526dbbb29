"""A weak prior that unannotated voxels are background, by their distance from foreground annotation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from autoseg.core.ranks import ONE_PROCESS, Ranks
from autoseg.dataset.labels import Labels
from autoseg.nn.losses.code_tables import flat_codes, head_states, sum_by_code
from autoseg.sampling.batch import Batch
from autoseg.tasks.task import task_of
from autoseg.training.evidence.source import DECAY, Evidence, EvidenceSource, Step
from autoseg.training.evidence.totals import Totals

LARGEST_MASS = 30.0
"""Largest weight of all unannotated voxels together as background, relative to all annotated ones."""
ZONE_BORDERS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Borders of the distance zones around foreground annotation, as shares of a patch's longest edge."""
N_ZONES = len(ZONE_BORDERS) + 1
LEAST_CONTRAST = 0.05
"""Smallest difference between hit rate and false alarms that a share is divided by."""


class BackgroundPrior(EvidenceSource):
    """Takes open voxels for background, with a weight that follows from the estimated shares of the classes there.

    Open are unannotated voxels that may be background, of cases whose classes were all annotated, unless what is known
    of them weighs more. The shares are estimated from the network's predictions on unannotated and held-out voxels.

    Parameters
    ----------
    strength
        The setting ``background_prior``.
    labels
        Of the data set.
    totals
        Of the training cases.
    device
        Where batches lie.
    ranks
        What each sees of a batch is summed.
    """

    name = "background_prior"

    def __init__(
        self, strength: float, labels: Labels, totals: Totals, device: torch.device, ranks: Ranks = ONE_PROCESS
    ) -> None:
        self.strength = strength
        self.ranks = ranks
        self.totals = totals
        self.heads = torch.from_numpy(labels.regions).to(device)
        self.task = task_of(labels)
        self.n_classes = labels.n_classes
        self.foreground = torch.tensor(labels.foreground_heads, device=device)
        self.drawn_as = torch.tensor(totals.drawn_as, dtype=torch.float32, device=device)
        self.spared = frozenset(name for name, said in labels.statements.items() if said.annotated is not None)
        """Cases in which some classes were not annotated."""
        self.unannotated = torch.zeros(2, N_ZONES, labels.n_heads, device=device)
        """Per zone the sum of predictions on unannotated voxels, and the number of these voxels; decaying."""
        self.held_out = torch.zeros(4, labels.n_heads, device=device)
        """The same on held-out voxels: hits and their number, false alarms and theirs; decaying."""

    def adjust(self, evidence: Evidence, batch: Batch, step: Step) -> Evidence:
        """Return evidence in which open codes are background, each with the rate of its zone as weight."""
        table, weights = evidence.table, evidence.code_weights
        applies = torch.tensor([case not in self.spared for case in batch.cases])
        applies = applies.to(weights.device, non_blocking=True)
        rates = self.rates()[table.zone.clamp_min(0)]
        is_open = (table.zone >= 0) & applies[:, None] & table.drawn[..., 0] & (rates >= weights)
        background = torch.zeros_like(table.learnt)
        background[..., 0] = True
        learnt = torch.where(is_open[..., None], background, table.learnt)
        return evidence._replace(table=table._replace(learnt=learnt), weights=torch.where(is_open, rates, weights))

    def rates(self) -> Tensor:
        r"""Weight (zones,) of an unannotated voxel as background, by its distance from foreground annotation, 0 to 1.

        .. math:: \rho_r = g \, (1 - 2 \pi_r)_+ \min(m \, d / u, \; \min_h \kappa \, d_h / (\pi_{hr} n))

        with d the annotated voxels, :math:`d_h` those annotated as head h, u all others, n those that neither
        annotation nor promise narrows, :math:`\pi_{hr}` the share of h among those of zone r, :math:`\pi_r` that of all
        foreground (regions: of the largest), m = 30 and :math:`\kappa` the setting ``background_prior``: unannotated
        voxels of h, wrongly taken as background, weigh together at most :math:`\kappa` times the annotated ones. So a
        class that is common, or hardly annotated, is left alone; and what lies far from all annotation counts for more
        than what lies beside it. Where foreground is half of the zone or more, "rather background than not" is wrong,
        and the weight is 0. The gate g falls with the square of the lowest hit rate below that of chance: a network
        that no longer recognises held-out annotation switches the prior off. See :meth:`shares`.
        """
        totals = self.totals
        n_undrawn = totals.n_unknown + totals.n_promised
        largest = min(1.0, LARGEST_MASS * totals.n_drawn / max(n_undrawn, 1))
        shares = self.shares()
        rates = self.strength * self.drawn_as / (shares * totals.n_open).clamp_min(1e-6)
        rates = torch.where(self.drawn_as > 0, rates, torch.inf)[:, self.foreground].amin(1).clamp_max(largest)
        summed, weight = self.held_out[:2, self.foreground]
        hits = torch.where(weight > 0, summed / weight.clamp_min(1e-6), 1.0)
        gate: Tensor = (hits.amin() * self.n_classes).clamp_max(1).square()
        foreground = shares[:, self.foreground]
        common = foreground.sum(1) if self.task.is_exclusive else foreground.amax(1)
        return rates * gate * (1 - 2 * common).clamp(0, 1)

    def shares(self) -> Tensor:
        """Return the estimated share (zones, H) of each head among voxels of which nothing is known.

        The adjusted count: the mean prediction on such voxels, less the false alarms, over the hit rate less the false
        alarms; hits and false alarms are those on held-out annotation (Forman 2008, *Data Mining and Knowledge
        Discovery* 17). Where hits hardly exceed false alarms the share comes out large, and the prior steps back; as
        long as nothing was predicted it is 0. No class is taken to be more common farther from foreground annotation
        than nearer to it. Otherwise false positives far away would switch the prior off there.
        """
        mean = self.unannotated[0] / self.unannotated[1].clamp_min(1e-6)
        hits, alarms = self.held_out[0::2] / self.held_out[1::2].clamp_min(1e-6)
        shares = ((mean - alarms) / (hits - alarms).clamp_min(LEAST_CONTRAST)).clamp(0, 1)
        known = torch.where(self.unannotated[1] > 0, shares, torch.inf)  # a zone without voxels bounds no other
        smallest: Tensor = known.cummin(0).values
        return torch.where(smallest.isinf(), 0.0, smallest)

    @torch.no_grad()
    def observe(self, batch: Batch, logits: Tensor) -> None:
        """Add the predictions on unannotated voxels and on held-out ones to the decaying sums."""
        table = batch.table
        probabilities = self.task.probabilities(logits.flatten(2).float())
        sums, counts = sum_by_code(probabilities, flat_codes(batch.codes), table.drawn.shape[1])
        counts = counts[..., None].expand_as(sums)
        of_zone = (table.zone[..., None] == torch.arange(N_ZONES, device=sums.device)).to(sums)  # (B, N, zones)
        unannotated = [torch.einsum("bnh,bnr->rh", total, of_zone) for total in (sums, counts)]
        self.unannotated.mul_(DECAY).add_(self.ranks.sum(torch.stack(unannotated)))
        is_held_out = table.held_out[..., None]
        states = head_states(table.drawn, self.heads)  # hits, false alarms
        held_out = [(total * (state & is_held_out)).sum((0, 1)) for state in states for total in (sums, counts)]
        self.held_out.mul_(DECAY).add_(self.ranks.sum(torch.stack(held_out)))

    def state(self) -> dict[str, Any]:
        """Return the statistics of predictions."""
        return {"unannotated": self.unannotated, "held_out": self.held_out}

    def restore(self, state: dict[str, Any], network: nn.Module) -> None:
        """Inverse of :meth:`state`."""
        self.unannotated.copy_(state["unannotated"])
        self.held_out.copy_(state["held_out"])
