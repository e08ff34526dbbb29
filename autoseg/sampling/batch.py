"""Batches of training patches, and the code tables of their samples stacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.cases.code_table import NO_ZONE, CodeTable
from autoseg.cases.layers import LayerInfo
from autoseg.sampling.input_channels import with_channels
from autoseg.sampling.origin import Origin


class BatchTable(NamedTuple):
    """The :class:`autoseg.cases.code_table.CodeTable` of each sample of a batch, as tensors.

    N is the largest number of codes of a sample. Codes that a sample lacks ("missing codes") occur in no voxel.
    """

    drawn: Tensor
    """(B, N, K) bool: classes by the annotation, held-out annotation included. All True for missing codes."""
    learnt: Tensor
    """(B, N, K) bool: classes that a voxel may have in training. All True for missing codes."""
    undrawn: Tensor
    """(B,) int64: code of unannotated voxels."""
    base: Tensor
    """(B, N) int64: code with the same annotation; ``undrawn`` for missing codes."""
    held_out: Tensor
    """(B, N) bool: codes of annotated voxels that are held out from training."""
    zone: Tensor
    """(B, N) int64: distance zone of codes of unannotated voxels, otherwise -1."""
    weight: Tensor | None = None
    """(B, N) float32 above 0, at most 1: how much an annotated voxel counts; None: all 1."""

    @classmethod
    def stack(cls, tables: Sequence[CodeTable]) -> BatchTable:
        """Return the stacked tables of B >= 1 samples with the same classes."""
        n_codes = max(map(len, tables))
        is_weighted = any((table.weight < 1).any() for table in tables)
        return cls(
            drawn=torch.stack([_filled(table.drawn, n_codes, True) for table in tables]),
            learnt=torch.stack([_filled(table.learnt, n_codes, True) for table in tables]),
            undrawn=torch.tensor([table.undrawn for table in tables]),
            base=torch.stack([_filled(table.base, n_codes, table.undrawn) for table in tables]),
            held_out=torch.stack([_filled(table.held_out, n_codes, False) for table in tables]),
            zone=torch.stack([_filled(table.zone, n_codes, NO_ZONE) for table in tables]),
            weight=torch.stack([_filled(table.weight, n_codes, 1) for table in tables]) if is_weighted else None,
        )

    @property
    def visible(self) -> Tensor:
        """(B, N, K) bool: classes by the annotation without what is held out: there all classes."""
        return self.drawn | self.held_out[..., None]

    def with_open_code(self) -> BatchTable:
        """Return the table with one more code, N, of unannotated voxels: (B, N + 1, K) and (B, N + 1)."""
        n_samples, _, n_classes = self.drawn.shape
        everything = self.drawn.new_ones(n_samples, 1, n_classes)
        return BatchTable(
            drawn=torch.cat([self.drawn, everything], 1),
            learnt=torch.cat([self.learnt, everything], 1),
            undrawn=self.undrawn,
            base=torch.cat([self.base, self.undrawn[:, None]], 1),
            held_out=torch.cat([self.held_out, self.held_out.new_zeros(n_samples, 1)], 1),
            zone=torch.cat([self.zone, self.zone.new_full((n_samples, 1), NO_ZONE)], 1),
            weight=None if self.weight is None else torch.cat([self.weight, self.weight.new_ones(n_samples, 1)], 1),
        )

    def of_sample(self, sample: int) -> CodeTable:
        """Return the table of one sample: (N, K) and (N,), missing codes included."""
        drawn, learnt, base, held_out, zone = (
            tensor[sample].cpu().numpy() for tensor in (self.drawn, self.learnt, self.base, self.held_out, self.zone)
        )
        weight = np.ones(len(zone), dtype=np.float32) if self.weight is None else self.weight[sample].cpu().numpy()
        return CodeTable(drawn, learnt, int(self.undrawn[sample]), base, held_out, zone, weight)

    def __reduce__(self) -> tuple[Callable[..., BatchTable], tuple[dict[str, NDArray[Any]]]]:
        """Pickle the tensors by value, each (B, ...): opening pieces of shared memory takes longer."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in self._asdict().items() if tensor is not None}
        return _from_arrays, (arrays,)

    def each(self, change: Callable[[Tensor], Tensor]) -> BatchTable:
        """Return the table with ``change`` applied to every tensor (B, ...)."""
        return self._replace(**{name: change(part) for name, part in self._asdict().items() if part is not None})


@dataclass(frozen=True)
class Batch:
    """The patches of one iteration."""

    images: Tensor
    """(B, C, *P) float32."""
    codes: Tensor
    """(B, *P) uint8, or int32 if a case has more than 256 codes."""
    table: BatchTable
    """Meaning of the codes of each sample."""
    cases: tuple[str, ...] = ()
    """(B,) names of the cases."""
    origins: tuple[Origin, ...] = ()
    """(B,) case, place and transform of each patch."""
    notes: tuple[tuple[str, str], ...] = ()
    """(case, message): warnings about cases, and once what rejection did ("" for the case); mostly empty."""
    layers: Mapping[str, Tensor] = field(default_factory=dict)
    """Further layers by name: (B, C, *P) float32 of intensities, otherwise (B, *P) uint8 or int32."""
    inputs: tuple[LayerInfo, ...] = ()
    """The layers that are network inputs besides the images, in order."""

    @property
    def network_input(self) -> Tensor:
        """(B, C', *P) float32: the images, then the channels of ``inputs``."""
        return with_channels(self.images, self.layers, self.inputs)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the batch on ``device``."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, from which copies to a GPU are asynchronous."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with ``change`` applied to every tensor (B, ...)."""
        layers = {name: change(layer) for name, layer in self.layers.items()}
        table = self.table.each(change)
        return replace(self, images=change(self.images), codes=change(self.codes), table=table, layers=layers)


def stack_images(images: Sequence[Tensor]) -> Tensor:
    """Return images (C, *P) stacked to (B, C, *P) float32.

    On the CPU the memory is allocated by NumPy, which uses huge pages: a quarter of the time of torch's allocator.
    """
    if images[0].device.type != "cpu":
        return torch.stack(list(images))
    stacked = torch.from_numpy(np.empty((len(images), *images[0].shape), dtype=np.float32))
    return torch.stack(list(images), out=stacked)


def stack_codes(codes: Sequence[Tensor]) -> Tensor:
    """Return maps (*P) stacked to (B, *P): uint8 if all are uint8, otherwise int32."""
    dtype = torch.uint8 if all(part.dtype == torch.uint8 for part in codes) else torch.int32
    return torch.stack([part.to(dtype) for part in codes])


def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> BatchTable:
    return BatchTable(**{name: torch.from_numpy(array) for name, array in arrays.items()})


def _filled(rows: NDArray[Any], n_codes: int, fill: int) -> Tensor:
    """Return rows (n, ...) padded to (n_codes, ...) with ``fill``."""
    filled = np.full((n_codes, *rows.shape[1:]), fill, dtype=rows.dtype)
    filled[: len(rows)] = rows
    return torch.from_numpy(filled)
