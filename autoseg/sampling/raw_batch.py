"""The boxes that the patches of a batch are cut out of, as read: a GPU moves them, so that workers only read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from autoseg.cases.layers import LayerInfo
from autoseg.sampling.batch import Batch, BatchTable, stack_codes, stack_images
from autoseg.sampling.move_layers import View
from autoseg.sampling.origin import Origin
from autoseg.sampling.patches import Cutout

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Packed:
    """Arrays of any shapes in one piece of memory: one copy to a device, and one handle between processes."""

    values: Tensor
    """(V,): all values, one array after the other."""
    shapes: tuple[Shape, ...]
    """Of each array."""

    @classmethod
    def of(cls, parts: Sequence[Tensor]) -> Packed:
        """Pack arrays of one type."""
        return cls(torch.cat([part.flatten() for part in parts]), tuple(tuple(part.shape) for part in parts))

    def unpacked(self) -> list[Tensor]:
        """Return the arrays, as views."""
        parts = torch.split(self.values, [math.prod(shape) for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def each(self, change: Callable[[Tensor], Tensor]) -> Packed:
        """Return the same with ``change`` applied to the values."""
        return replace(self, values=change(self.values))


@dataclass(frozen=True)
class RawBatch:
    """A :class:`autoseg.sampling.batch.Batch` whose patches are still to be cut out."""

    images: Packed
    """(C, *box) float32 of each sample."""
    codes: Packed
    """(*box) uint8 or int32 of each sample."""
    layers: Mapping[str, Packed]
    views: tuple[View, ...]
    unknown: tuple[int, ...]
    """Of each sample: code of unannotated voxels."""
    outside: int
    """Code of what lies outside the image."""
    bases: tuple[Tensor | None, ...]
    """Of each sample, (N,) on the CPU: base code of each code; None if every code is its own."""
    infos: tuple[LayerInfo, ...]
    """Of ``layers``."""
    table: BatchTable
    cases: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    inputs: tuple[LayerInfo, ...] = field(default=())

    @classmethod
    def of(
        cls, cutouts: Sequence[Cutout], table: BatchTable, names: Sequence[str], origins: Sequence[Origin],
        inputs: tuple[LayerInfo, ...],
    ) -> RawBatch:  # fmt: skip
        """Pack the cut-outs of B >= 1 samples with the same further layers."""
        is_small = all(cutout.codes.dtype == torch.uint8 for cutout in cutouts)
        dtype = torch.uint8 if is_small else torch.int32
        infos = cutouts[0].infos
        return cls(
            images=Packed.of([cutout.image for cutout in cutouts]),
            codes=Packed.of([cutout.codes.to(dtype) for cutout in cutouts]),
            layers={info.name: Packed.of([cutout.layers[info.name] for cutout in cutouts]) for info in infos},
            views=tuple(cutout.view for cutout in cutouts),
            unknown=tuple(cutout.unknown for cutout in cutouts),
            outside=cutouts[0].outside,
            bases=tuple(cutout.base for cutout in cutouts),
            infos=infos,
            table=table,
            cases=tuple(names),
            origins=tuple(origins),
            inputs=inputs,
        )

    def moved(self) -> Batch:
        """Cut the patches out, on the device of the boxes; nothing in it waits for a GPU.

        Only a further layer of label sets without a code for unannotated voxels makes it wait, once.
        """
        images, codes = self.images.unpacked(), self.codes.unpacked()
        layers = {name: packed.unpacked() for name, packed in self.layers.items()}
        samples = [
            Cutout(
                image, code, {name: parts[index] for name, parts in layers.items()}, view, unknown, self.outside, base,
                self.infos,
            ).moved()
            for index, (image, code, view, unknown, base) in enumerate(
                zip(images, codes, self.views, self.unknown, self.bases, strict=True)
            )
        ]  # fmt: skip
        return Batch(
            stack_images([sample.image for sample in samples]),
            stack_codes([sample.codes for sample in samples]),
            self.table,
            self.cases,
            self.origins,
            self.notes,
            {info.name: torch.stack([sample.layers[info.name] for sample in samples]) for info in self.infos},
            self.inputs,
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> RawBatch:
        """Return the boxes and tables on ``device``; base codes stay on the CPU, where they are read."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory of tensors that another CUDA stream copied until ``stream`` has used them."""

        def keep(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        self._each(keep)

    def pin_memory(self) -> RawBatch:
        """Return the boxes and tables in page-locked memory, from which copies to a GPU are asynchronous."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> RawBatch:
        return replace(
            self,
            images=self.images.each(change),
            codes=self.codes.each(change),
            layers={name: packed.each(change) for name, packed in self.layers.items()},
            table=self.table.each(change),
        )
