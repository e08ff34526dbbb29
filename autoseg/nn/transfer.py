"""Transfer of weights to a network with other classes or channels, which are matched by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HEADS = "heads."
"""Prefix of the names of the output layers' tensors."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Meaning of the inputs and outputs of a network."""

    channels: tuple[str, ...]
    """Names of the image channels."""
    heads: tuple[str, ...]
    """Names of the classes, background first, or of the regions."""
    has_regions: bool
    """Whether the outputs are regions (sigmoid) instead of classes (softmax)."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Initial weights of a network, and a record of the use of the given weights."""

    weights: Mapping[str, Tensor]
    """State dict of the network to train: name -> tensor of any shape."""
    matched: tuple[str, ...]
    """Names of the tensors that were taken unchanged."""
    adapted: tuple[str, ...]
    """Names of the tensors of which only some rows or columns were taken, or all in another order."""
    skipped: tuple[str, ...]
    """Names of the tensors that keep their initial weights, because none of their channels or outputs has a match."""
    mismatched: Mapping[str, str]
    """Name of a tensor that does not fit -> reason. If there is any, the architectures differ."""
    heads: Mapping[str, str]
    """Output -> output of the given weights. Other outputs keep their initial weights."""
    channels: Mapping[str, str]
    """Input channel -> channel of the given weights. Other channels keep their initial weights."""


@dataclass(frozen=True, slots=True)
class _End:
    """An axis of a tensor whose entries have names (of channels or outputs), and the matching of its entries."""

    axis: int
    pairs: Mapping[int, int]
    """Own index -> given index."""
    n_own: int
    """Length of the axis in the network to train."""
    n_given: int
    """Length of the axis in the given weights."""

    @property
    def is_whole(self) -> bool:
        """Whether all entries of both tensors are matched, in the same order."""
        return self.n_own == self.n_given == sum(mine == theirs for mine, theirs in self.pairs.items())

    def fits(self, own: Tensor, given: Tensor) -> bool:
        """Whether two tensors of any shape have the expected lengths along the axis and agree along all others."""
        shapes = [list(tensor.shape) for tensor in (own, given)]
        if any(len(shape) <= self.axis for shape in shapes):
            return False
        lengths = (shapes[0].pop(self.axis), shapes[1].pop(self.axis))
        return lengths == (self.n_own, self.n_given) and shapes[0] == shapes[1]

    def placed(self, own: Tensor, given: Tensor) -> Tensor:
        """Return a tensor of the shape of ``own``, with the matched entries taken from ``given``."""
        if not self.pairs:
            return own
        mine, theirs = (torch.tensor(list(part), device=own.device) for part in (self.pairs, self.pairs.values()))
        return own.index_copy(self.axis, mine, given.index_select(self.axis, theirs))


def transfer(own: Mapping[str, Tensor], given: Mapping[str, Tensor], own_ends: Ends, given_ends: Ends) -> Transfer:
    """Return the weights ``own`` of a network with the matching entries of ``given`` weights; neither is changed.

    Outputs are matched by the name of the class or region, but never a class (softmax) with a region (sigmoid), whose
    logits have different meanings. Input channels are matched by name, and the remaining channels of both in order.
    Entries without a match keep their initial values.

    Parameters
    ----------
    own, given
        State dicts of :class:`autoseg.nn.architectures.unet.UNet`: name -> tensor of any shape.
    own_ends, given_ends
        Meaning of the inputs and outputs of both networks.
    """
    heads = _by_name(own_ends.heads, given_ends.heads) if own_ends.has_regions == given_ends.has_regions else {}
    channels = _by_name(own_ends.channels, given_ends.channels, rest_in_order=True)
    outputs = _End(0, heads, len(own_ends.heads), len(given_ends.heads))
    inputs = _End(1, channels, len(own_ends.channels), len(given_ends.channels))
    first = next(iter(own))
    weights = dict(own)
    matched: list[str] = []
    adapted: list[str] = []
    skipped: list[str] = []
    mismatched: dict[str, str] = {}
    for name, tensor in own.items():
        other = given.get(name)
        end = outputs if name.startswith(HEADS) else inputs if name == first else None
        if other is None:
            mismatched[name] = "not in the checkpoint"
        elif not (other.shape == tensor.shape if end is None else end.fits(tensor, other)):
            mismatched[name] = f"{tuple(other.shape)} instead of {tuple(tensor.shape)}"
        else:
            weights[name] = other.to(tensor) if end is None else end.placed(tensor, other.to(tensor))
            (matched if end is None or end.is_whole else adapted if end.pairs else skipped).append(name)
    mismatched |= {name: "not in this network" for name in given if name not in own}
    return Transfer(
        weights=weights,
        matched=tuple(matched),
        adapted=tuple(adapted),
        skipped=tuple(skipped),
        mismatched=mismatched,
        heads={own_ends.heads[mine]: given_ends.heads[theirs] for mine, theirs in heads.items()},
        channels={own_ends.channels[mine]: given_ends.channels[theirs] for mine, theirs in channels.items()},
    )


def _by_name(own: Sequence[str], given: Sequence[str], *, rest_in_order: bool = False) -> dict[int, int]:
    """Return own index -> index of the same name in ``given``. ``rest_in_order`` also pairs the remaining names."""
    place = {name.casefold(): index for index, name in enumerate(given)}
    pairs = {index: place.pop(name.casefold()) for index, name in enumerate(own) if name.casefold() in place}
    if rest_in_order:
        rest = (index for index in range(len(own)) if index not in pairs)
        pairs |= dict(zip(rest, sorted(place.values()), strict=False))
    return pairs
