"""Start a network from the weights of another one whose classes or channels differ: rows and columns go by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HEADS = "heads."
"""What the names of the output layers' tensors begin with."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What the first and the last layers of a network mean."""

    channels: tuple[str, ...]
    heads: tuple[str, ...]
    """Names of classes, background first, or of regions."""
    has_regions: bool


@dataclass(frozen=True, slots=True)
class Transfer:
    """Weights to start from, and what became of those that were given."""

    weights: Mapping[str, Tensor]
    """State dict of the network that is to be trained."""
    matched: tuple[str, ...]
    """Tensors taken as they are."""
    adapted: tuple[str, ...]
    """Tensors of which some rows or columns were taken, or all in another order."""
    mismatched: Mapping[str, str]
    """Tensors that do not fit -> why. With any of these the networks are different ones."""
    heads: Mapping[str, str]
    """Output -> output of the given weights; those left out start fresh."""
    channels: Mapping[str, str]
    """Input channel -> channel of the given weights; those left out start fresh."""


@dataclass(frozen=True, slots=True)
class _End:
    """The axis of a tensor whose entries have names."""

    axis: int
    pairs: Mapping[int, int]
    """Own index -> given index."""
    n_own: int
    n_given: int

    @property
    def is_whole(self) -> bool:
        """Whether every entry is taken, in order, and none is left."""
        return self.n_own == self.n_given == sum(mine == theirs for mine, theirs in self.pairs.items())

    def fits(self, own: Tensor, given: Tensor) -> bool:
        """Whether both tensors have the expected length along the axis, and agree along all others."""
        shapes = [list(tensor.shape) for tensor in (own, given)]
        if any(len(shape) <= self.axis for shape in shapes):
            return False
        lengths = (shapes[0].pop(self.axis), shapes[1].pop(self.axis))
        return lengths == (self.n_own, self.n_given) and shapes[0] == shapes[1]

    def placed(self, own: Tensor, given: Tensor) -> Tensor:
        """Return ``own`` with the paired entries replaced by those of ``given``."""
        if not self.pairs:
            return own
        mine, theirs = (torch.tensor(list(part), device=own.device) for part in (self.pairs, self.pairs.values()))
        return own.index_copy(self.axis, mine, given.index_select(self.axis, theirs))


def transfer(own: Mapping[str, Tensor], given: Mapping[str, Tensor], own_ends: Ends, given_ends: Ends) -> Transfer:
    """Fit ``given`` weights to a network with the initial weights ``own``; neither is changed.

    Rows of the heads are taken by the name of the class or region; between classes (softmax) and regions (sigmoid)
    none is, since their values mean different things. Columns of the first convolution are taken by the name of the
    channel, the remaining channels of both in order. Whatever finds no counterpart keeps its initial values.

    Parameters
    ----------
    own, given
        State dicts of :class:`autoseg.nn.architectures.unet.UNet`.
    own_ends, given_ends
        What their first and last layers mean.
    """
    heads = _by_name(own_ends.heads, given_ends.heads) if own_ends.has_regions == given_ends.has_regions else {}
    channels = _by_name(own_ends.channels, given_ends.channels, rest_in_order=True)
    outputs = _End(0, heads, len(own_ends.heads), len(given_ends.heads))
    inputs = _End(1, channels, len(own_ends.channels), len(given_ends.channels))
    first = next(iter(own))
    weights = dict(own)
    matched: list[str] = []
    adapted: list[str] = []
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
            (matched if end is None or end.is_whole else adapted).append(name)
    mismatched |= {name: "not in this network" for name in given if name not in own}
    return Transfer(
        weights=weights,
        matched=tuple(matched),
        adapted=tuple(adapted),
        mismatched=mismatched,
        heads={own_ends.heads[mine]: given_ends.heads[theirs] for mine, theirs in heads.items()},
        channels={own_ends.channels[mine]: given_ends.channels[theirs] for mine, theirs in channels.items()},
    )


def _by_name(own: Sequence[str], given: Sequence[str], *, rest_in_order: bool = False) -> dict[int, int]:
    """Return own index -> index of the same name in ``given``; ``rest_in_order`` pairs what is left of both."""
    place = {name.casefold(): index for index, name in enumerate(given)}
    pairs = {index: place.pop(name.casefold()) for index, name in enumerate(own) if name.casefold() in place}
    if rest_in_order:
        rest = (index for index in range(len(own)) if index not in pairs)
        pairs |= dict(zip(rest, sorted(place.values()), strict=False))
    return pairs
