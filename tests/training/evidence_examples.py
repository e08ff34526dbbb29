"""A small data set's labels and batches, for the tests of evidence."""

from __future__ import annotations

import torch
from torch import nn

from autoseg.dataset.labels import Head, Labels
from autoseg.sampling.batch import Batch, BatchTable
from autoseg.training.evidence.source import Step
from autoseg.training.evidence.totals import Totals

K, UNKNOWN = 3, 3
CPU = torch.device("cpu")
TOTALS = Totals(n_drawn=200, n_promised=1000, n_unknown=10_000, n_open=10_000, drawn_as=(100, 60, 40))
SETS = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=torch.bool)
"""The classes, unknown, a lazy set, and unknown that a promise settles."""
PROMISED = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 1], [1, 0, 0]], dtype=torch.bool)


def labels(statements: dict | None = None, *, regions: bool = False) -> Labels:
    heads = tuple(Head(name, (k,), (k,), is_background=k == 0) for k, name in enumerate(("background", "a", "b")))
    if regions:
        heads = (Head("ab", (1, 2), (1, 2)), Head("b", (2,), (2,)))
    return Labels(
        (0, 1, 2), ("background", "a", "b"), heads, paint_values=(1, 2) if regions else None, ignore=3,
        statements=statements or {},
    )  # fmt: skip


def table(n: int, *, drawn: torch.Tensor = SETS, learnt: torch.Tensor | None = None, **changes: list) -> BatchTable:
    """Return the table of ``n`` samples with the same sets (N, K); code 3 is in zone 1. ``changes`` are rows of N."""
    n_codes = len(drawn)
    rows = {"held_out": [False] * n_codes, "zone": [-1, -1, -1, 1] + [-1] * (n_codes - 4)} | changes
    return BatchTable(
        drawn=drawn.expand(n, -1, -1), learnt=(drawn if learnt is None else learnt).expand(n, -1, -1),
        undrawn=torch.full((n,), UNKNOWN), base=torch.arange(n_codes).expand(n, -1),
        held_out=torch.tensor(rows["held_out"]).expand(n, -1), zone=torch.tensor(rows["zone"]).expand(n, -1),
    )  # fmt: skip


def batch(codes: torch.Tensor, *, promised: bool = False, held_out: bool = False, name: str = "x") -> Batch:
    """Return a batch of codes (B, *P); with ``held_out`` code 5 is held-out annotation of class a."""
    n = len(codes)
    made = table(n, learnt=PROMISED if promised else None)
    if held_out:
        drawn = SETS.clone()
        drawn[5] = torch.tensor([False, True, False])
        made = table(n, drawn=drawn, learnt=SETS, held_out=[False] * 5 + [True])
    return Batch(torch.zeros(n, 1, *codes.shape[1:]), codes, made, (name,) * n)


def silent(iteration: int = 0) -> Step:
    """Return a step in which nobody may ask for a prediction."""

    def refuse(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        raise ValueError("nobody should ask")

    return Step(iteration, refuse)


def speaking(iteration: int) -> Step:
    """Return a step in which networks are applied as they are."""
    return Step(iteration, lambda network, images: network(images))


def network_of(bias: list[float]) -> nn.Module:
    """Return a network that predicts the same logits for every voxel of a 2-D patch."""
    network = nn.Conv2d(1, K, 1)
    nn.init.zeros_(network.weight)
    network.bias.data = torch.tensor(bias)
    return network
