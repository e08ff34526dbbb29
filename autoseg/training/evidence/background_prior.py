"""What training makes of voxels that nobody annotated: promises, a weak prior towards background, a teacher.

Inferred evidence is kept apart from what was drawn. It has weights of its own, which follow from how much there is of
either and from annotation that training does not see; it never changes what is said of a drawn voxel; and each kind
can be switched off.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.cases.entry import CacheEntry
from autoseg.dataset.labels import Labels, drawn_codes, informative_codes, undrawn_row
from autoseg.dataset.labels import head_states as table_head_states
from autoseg.nn.losses.code_tables import flat_codes, head_states, sum_by_code
from autoseg.nn.losses.code_tables import informative_codes as informative
from autoseg.sampling.loader import Batch
from autoseg.tasks.task import task_of
from autoseg.training.config import TrainingConfig
from autoseg.training.evidence.source import Evidence, with_teacher
from autoseg.training.evidence.teacher import DECAY, Predict, Teacher

LARGEST_MASS = 30.0
"""What unannotated voxels may weigh as background, all together, relative to all that was drawn."""
RINGS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Borders of the rings around foreground annotation, as shares of a patch's longest edge."""
N_RINGS = len(RINGS) + 1
LEAST_CONTRAST = 0.05
"""Smallest difference between hit rate and false alarms that a share is divided by."""


@dataclass(frozen=True, slots=True)
class Totals:
    """How much of the training cases is annotated."""

    n_drawn: int
    """Voxels of which the annotators said something."""
    n_promised: int
    """Voxels of which only promises say something, or that a class is absent from their case."""
    n_unknown: int
    """Voxels of which nothing is known."""
    n_open: int
    """Voxels of which nothing is known, or only that a class is absent from their case: the prior is about these."""
    drawn_as: tuple[int, ...]
    """Per head the voxels drawn as it."""

    @classmethod
    def of(cls, entries: Iterable[CacheEntry], labels: Labels) -> Totals:
        """Count over cached cases."""
        n_drawn = n_promised = n_unknown = n_open = 0
        drawn_as = [0] * labels.n_heads
        for entry in entries:
            table = entry.table
            undrawn = undrawn_row(labels, entry.record.case)
            drawn, narrowed = drawn_codes(table, undrawn), informative_codes(entry.inferred_table)
            open_ = (entry.inferred_table == undrawn).all(axis=1)
            positive, _ = table_head_states(table, labels.regions)
            for code, count in entry.code_counts.items():
                n_drawn += count * bool(drawn[code])
                n_promised += count * bool(narrowed[code] and not drawn[code])
                n_unknown += count * bool(not narrowed[code] and not drawn[code])
                n_open += count * bool(open_[code] and not drawn[code])
                drawn_as = [sum_ + count * bool(hit) for sum_, hit in zip(drawn_as, positive[code], strict=True)]
        return cls(n_drawn, n_promised, n_unknown, n_open, tuple(drawn_as))


class Unannotated:
    """Makes the evidence of a batch, and learns from the network's predictions how far to trust what is inferred.

    Parameters
    ----------
    config
        ``promise_weight``, ``background_prior`` and the settings of the teacher.
    labels
        Of the data set.
    totals
        Of the training cases.
    device
        Where batches lie.
    touches_all
        Whether the annotators promise that every object carries an annotation (``instances_touched``).
    """

    def __init__(
        self, config: TrainingConfig, labels: Labels, totals: Totals, device: torch.device, *, touches_all: bool = False
    ) -> None:
        self.config = config
        self.totals = totals
        self.heads = torch.from_numpy(labels.regions).to(device)
        self.task = task_of(labels)
        self.n_classes = labels.n_classes
        self.foreground = list(labels.foreground_heads)
        self.drawn_as = torch.tensor(totals.drawn_as, dtype=torch.float32, device=device)
        self.contradicted = frozenset(
            name for name, statement in labels.statements.items() if statement.annotated is not None
        )
        self.absences = {
            name: torch.from_numpy(undrawn_row(labels, name)).to(device)
            for name, statement in labels.statements.items()
            if statement.absent
        }
        self.unknown = torch.zeros(2, N_RINGS, labels.n_heads, device=device)
        """Per ring the sum of predictions on unknown voxels, and how many voxels that was; decaying."""
        self.held = torch.zeros(4, labels.n_heads, device=device)
        """The same on held-out voxels: hits and their number, false alarms and theirs."""
        self.teacher = Teacher(config, labels, touches_all) if config.teacher_weight else None

    def evidence(self, batch: Batch, iteration: int, predict: Predict) -> Evidence:
        """Return what a batch says in step ``iteration``. Held-out voxels are unannotated ones here.

        ``predict`` applies a network to images as training does.
        """
        drawn = batch.label_sets
        sets = drawn if batch.inferred_sets is None else batch.inferred_sets
        is_drawn, is_known = informative(drawn), informative(sets)
        for sample, case in enumerate(batch.cases):
            if case in self.absences:
                is_drawn[sample] &= (drawn[sample] != self.absences[case]).any(1)
        weights = torch.where(is_drawn, 1.0, self.promise_weight * is_known)
        if self.config.background_prior and batch.rings is not None:
            applies = torch.tensor([case not in self.contradicted for case in batch.cases], device=drawn.device)
            rates = self.background_rates()[batch.rings.clamp_min(0)]
            is_open = (batch.rings >= 0) & applies[:, None] & drawn[..., 0] & (rates >= weights)
            background = torch.zeros_like(sets)
            background[..., 0] = True
            sets = torch.where(is_open[..., None], background, sets)
            weights = torch.where(is_open, rates, weights)
        evidence = Evidence(batch.codes, drawn, sets, weights, undrawn=batch.undrawn)
        if self.teacher is None:
            return evidence
        taught = self.teacher.teach(batch, iteration, predict)
        return evidence if taught is None else with_teacher(evidence, taught, batch)

    @property
    def promise_weight(self) -> float:
        """Weight of a voxel of which only a promise or an absent class says something.

        All of them together weigh ``promise_weight`` times what was drawn: or a few scribbles would be drowned by what
        holds for every voxel of the image.
        """
        totals = self.totals
        return min(1.0, self.config.promise_weight * totals.n_drawn / max(totals.n_promised, 1))

    def background_rates(self) -> Tensor:
        r"""Weight (rings,) of an unannotated voxel as background, by its distance from foreground annotation, 0 to 1.

        .. math:: \rho_r = g \, (1 - 2 \pi_r)_+ \min(m \, d / u, \; \min_h \kappa \, d_h / (\pi_{hr} n))

        with d the drawn voxels, :math:`d_h` those drawn as head h, u all others, n those that neither drawing nor
        promise narrows, :math:`\pi_{hr}` the share of h among those of ring r, :math:`\pi_r` that of all foreground
        (regions: of the largest), m = 30 and :math:`\kappa` the setting ``background_prior``: unannotated voxels of h,
        wrongly taken as background, weigh together at most :math:`\kappa` times the drawn ones. So a class that is
        common, or hardly annotated, is left alone; and what lies far from all annotation counts for more than what lies
        beside it. Where foreground is half of the ring or more, "rather background than not" is wrong, and nothing is
        said. The gate g falls with the square of the lowest hit rate below that of chance: what no longer finds
        held-out annotation gives way. See :meth:`shares`.
        """
        totals = self.totals
        n_undrawn = totals.n_unknown + totals.n_promised
        largest = min(1.0, LARGEST_MASS * totals.n_drawn / max(n_undrawn, 1))
        shares = self.shares()
        rates = self.config.background_prior * self.drawn_as / (shares * totals.n_open).clamp_min(1e-6)
        rates = torch.where(self.drawn_as > 0, rates, torch.inf)[:, self.foreground].amin(1).clamp_max(largest)
        summed, weight = self.held[:2, self.foreground]
        hits = torch.where(weight > 0, summed / weight.clamp_min(1e-6), 1.0)
        gate: Tensor = (hits.amin() * self.n_classes).clamp_max(1).square()
        foreground = shares[:, self.foreground]
        common = foreground.sum(1) if self.task.is_exclusive else foreground.amax(1)
        return rates * gate * (1 - 2 * common).clamp(0, 1)

    def shares(self) -> Tensor:
        """Return the estimated share (rings, H) of each head among voxels of which nothing is known.

        The adjusted count: the mean prediction on such voxels, less the false alarms, over the hit rate less the false
        alarms; hits and false alarms are those on held-out annotation (Forman 2008, *Data Mining and Knowledge
        Discovery* 17). Where hits hardly exceed false alarms the share comes out large, and the prior steps back; as
        long as nothing was predicted it is 0. No class is taken to be more common farther from foreground annotation
        than nearer to it: or what is falsely seen far away would be taken for a reason to look away.
        """
        mean_unknown = self.unknown[0] / self.unknown[1].clamp_min(1e-6)
        hits, alarms = self.held[0::2] / self.held[1::2].clamp_min(1e-6)
        shares = ((mean_unknown - alarms) / (hits - alarms).clamp_min(LEAST_CONTRAST)).clamp(0, 1)
        seen = torch.where(self.unknown[1] > 0, shares, torch.inf)  # a ring without voxels says nothing of others
        nearest: Tensor = seen.cummin(0).values
        return torch.where(nearest.isinf(), 0.0, nearest)

    @torch.no_grad()
    def observe(self, batch: Batch, logits: Tensor) -> None:
        """Take note of the logits (B, O, *P) on a batch: on unknown voxels, and on held-out ones."""
        if batch.rings is None:
            return
        probabilities = self.task.probabilities(logits.flatten(2).float())
        sums, counts = sum_by_code(probabilities, flat_codes(batch.codes), batch.label_sets.shape[1])
        counts = counts[..., None].expand_as(sums)
        of_ring = (batch.rings[..., None] == torch.arange(N_RINGS, device=sums.device)).to(sums)  # (B, N, rings)
        unknown = [torch.einsum("bnh,bnr->rh", total, of_ring) for total in (sums, counts)]
        self.unknown.mul_(DECAY).add_(torch.stack(unknown))
        self.held.mul_(DECAY)
        if batch.held_sets is None:
            return
        positive, negative = head_states(batch.held_sets, self.heads)
        is_held = informative(batch.held_sets)[..., None]
        seen = [(total * (mask & is_held)).sum((0, 1)) for mask in (positive, negative) for total in (sums, counts)]
        self.held.add_(torch.stack(seen))

    def follow(self, network: nn.Module) -> None:
        """Move the teacher, if there is one, towards the network."""
        if self.teacher is not None:
            self.teacher.follow(network)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs, as tensors."""
        teacher = None if self.teacher is None else self.teacher.state()
        return {"unknown": self.unknown, "held": self.held, "teacher": teacher}

    def restore(self, state: dict[str, Any], network: nn.Module) -> None:
        """Inverse of :meth:`state`; ``network`` is one like that which the teacher followed."""
        self.unknown.copy_(state["unknown"])
        self.held.copy_(state["held"])
        if self.teacher is not None:
            self.teacher.restore(state["teacher"], network)
