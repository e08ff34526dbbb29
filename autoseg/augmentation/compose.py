"""Augmentation of NumPy arrays outside of a training: a list of operations for the targets of a sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.random import SeedSequence
from numpy.typing import NDArray
from torch import Generator, Tensor

from autoseg.augmentation.enlarged import Size
from autoseg.augmentation.mixup import Mixup
from autoseg.augmentation.move_nearest import move_nearest
from autoseg.augmentation.patches import Patches
from autoseg.augmentation.recipes import (
    Geometric,
    Intensity,
    Joint,
    Operation,
    Recipe,
    augment_intensity_,
    augment_together_,
    draw_warp,
)
from autoseg.augmentation.warp import Warp, identity, move_image, source_box
from autoseg.core.errors import ConfigError

IMAGE, LABEL = "image", "label"
"""Name of the target that every sample has, and of the mask whose foreground CopyPaste pastes."""
TargetType = Literal["img", "image", "mask"]
Sample = Mapping[str, Any]


@runtime_checkable
class Enlarging(Protocol):
    """An operation that says which sample a patch is cut out of."""

    def sample_size(self, size: Size) -> Size:
        """Return the edges of the sample for a patch with edges ``size``."""


class Compose:
    """Operations that are applied to the targets of a sample, all targets moved alike.

    The operations are those of training, and applied as there: first all that move voxels, in one pass, then all that
    change intensities, then those that change labels. Images are interpolated linearly and get all operations; masks
    take the nearest voxel and are only moved. ::

        augment = Compose([Turn(), MisAlignment(displacement=8)], additional_targets={"label": "mask"},
                          input_size=(8, 256, 256))
        patch = augment({"image": image, "label": label}, seed=1)   # arrays of augment.sample_size voxels, or more

    Source: PyTorch Connectomics ``Compose``. Differs: operations are applied in the order of the list; no label is
    smoothed; targets may have channels.
    """

    def __init__(
        self,
        transforms: Sequence[Operation],
        *,
        additional_targets: Mapping[str, TargetType] | None = None,
        input_size: Sequence[int] | None = None,
        skip_targets: Mapping[str, Sequence[str]] | None = None,
        outside: Mapping[str, float] | None = None,
    ) -> None:
        """Check and keep the settings.

        Parameters
        ----------
        transforms
            The operations. Mixup, which mixes the patches of a batch, is refused.
        additional_targets
            Name -> ``img`` or ``mask`` of the targets besides ``image``. None: ``label`` is a mask, if there is one.
            Other entries of a sample stay as they are.
        input_size
            Edges (2 or 3) of the patches that are returned, voxels. None: those of the sample, whose last three axes
            (or two, if it has no more) are then those of space.
        skip_targets
            Class of an operation, as ``CutNoise`` -> names of targets that it leaves alone.
        outside
            Name -> value of what lies outside of a sample; 0 if not given. With samples of ``sample_size`` that
            happens at most in the corners of rotated sections.

        Raises
        ------
        ConfigError
            For Mixup, a type of target or an operation that does not exist, an ``input_size`` that is not 2 or 3 edges,
            and CopyPaste without a mask ``label``.
        """
        self.recipe = Recipe(tuple(transforms))
        self.input_size = _checked_size(input_size)
        self.targets = None if additional_targets is None else dict(additional_targets)
        self.skip_targets = {
            name: (names,) if isinstance(names, str) else tuple(names) for name, names in (skip_targets or {}).items()
        }
        self.outside = dict(outside or {})
        self._check()

    def _check(self) -> None:
        operations = self.recipe.operations
        names = {type(operation).__name__ for operation in operations}
        if any(isinstance(operation, Mixup) for operation in operations):
            raise ConfigError("Compose: Mixup mixes the patches of a batch, but a sample has one. Leave it out.")
        for name, kind in (self.targets or {}).items():
            if kind not in ("img", "image", "mask"):
                raise ConfigError(f"Compose: target {name!r} has the type {kind!r}, expected 'img' or 'mask'.")
        for name in self.skip_targets:
            if name not in names:
                raise ConfigError(f"Compose: skip_targets names {name!r}, expected one of {', '.join(sorted(names))}.")
        is_labelled = self.targets is None or self.targets.get(LABEL) == "mask"
        if not is_labelled and any(isinstance(operation, Joint) for operation in operations):
            raise ConfigError("Compose: CopyPaste needs a target 'label' of the type 'mask'. Add it, or leave it out.")

    @property
    def sample_size(self) -> Size | None:
        """Edges of the sample that a patch needs, voxels; None if ``input_size`` is."""
        if self.input_size is None:
            return None
        size: Size = self.input_size
        for operation in self.recipe.operations:
            if isinstance(operation, Enlarging):
                size = operation.sample_size(size)
        return size

    def __call__(self, sample: Sample, seed: int | None = None) -> dict[str, Any]:
        """Return the sample with each target augmented and cut to ``input_size``.

        Parameters
        ----------
        sample
            ``image`` (*S) or (C, *S), and the additional targets, of the same *S, any number type.
        seed
            Everything random follows from it. None takes another one each time, from the operating system.

        Returns
        -------
        dict
            Images as float32, masks of the type they had.

        Raises
        ------
        ConfigError
            A target is missing, its shape is not that of the image, a value of ``outside`` is not one of its type, or
            ``skip_targets`` or ``outside`` name what is no target.
        """
        targets = self._targets_of(sample)
        self._check_names(targets)
        n_axes = len(self.input_size) if self.input_size else min(max(np.ndim(sample[IMAGE]), 2), 3)
        shape = np.shape(sample[IMAGE])[-n_axes:]
        for name in targets:
            if np.ndim(sample[name]) not in (n_axes, n_axes + 1) or np.shape(sample[name])[-n_axes:] != shape:
                alike = "" if name == IMAGE else f", the last of them {shape} as of the image"
                raise ConfigError(
                    f"Compose: target {name!r} has the shape {np.shape(sample[name])}, expected {n_axes} axes, or "
                    f"{n_axes + 1} with channels first{alike}."
                )
            _check_outside(name, self.outside.get(name, 0), np.asarray(sample[name]).dtype, targets[name])
        patch = self.input_size or shape
        entropy = SeedSequence(seed).entropy
        centre = _centre_inside(self._warp(IMAGE, patch, entropy), patch, shape)
        moved = {
            name: self._moved(name, np.asarray(sample[name]), kind, (patch, centre, entropy))
            for name, kind in targets.items()
        }
        self._change_together_(moved, targets, entropy)
        arrays = {name: _as_array(moved[name], np.asarray(sample[name]), kind) for name, kind in targets.items()}
        return {**sample, **arrays}

    def _targets_of(self, sample: Sample) -> dict[str, TargetType]:
        """Return name -> type of the targets; raise ``ConfigError`` for one that is missing."""
        further: Mapping[str, TargetType] = {LABEL: "mask"} if LABEL in sample else {}
        targets: dict[str, TargetType] = {IMAGE: "img", **(further if self.targets is None else self.targets)}
        for name in targets:
            if name not in sample:
                raise ConfigError(f"Compose: the sample has no {name!r}, only {', '.join(sample)}. Add it.")
        return targets

    def _check_names(self, targets: Mapping[str, TargetType]) -> None:
        """Raise ``ConfigError`` if a setting is of something that is no target, and so would have no effect."""
        named = {"outside": tuple(self.outside), **{f"skip_targets {key}": to for key, to in self.skip_targets.items()}}
        for setting, names in named.items():
            for name in names:
                if name not in targets:
                    raise ConfigError(
                        f"Compose: {setting} names {name!r}, expected one of {', '.join(targets)}. Correct the name, "
                        "or add it to additional_targets."
                    )

    def _operations(self, name: str) -> list[tuple[int, Operation]]:
        """Return index and operation of those that a target gets."""
        numbered = enumerate(self.recipe.operations)
        return [(n, one) for n, one in numbered if name not in self.skip_targets.get(type(one).__name__, ())]

    def _warp(self, name: str, patch: Size, entropy: Any) -> Warp:
        """Return the warp of a target; each operation has its own random numbers, whichever others are skipped."""
        warp = identity(len(patch))
        for number, operation in self._operations(name):
            if isinstance(operation, Geometric):
                rng = np.random.default_rng(SeedSequence(entropy, spawn_key=(number,)))
                warp = draw_warp(Recipe((operation,)), patch, rng, before=warp)
        return warp

    def _moved(
        self, name: str, array: NDArray[Any], kind: TargetType, how: tuple[Size, tuple[float, ...], Any]
    ) -> Tensor:
        """Return a target (C, *P), moved and, if it is an image, with other intensities."""
        patch, centre, entropy = how
        layers = array if array.ndim == len(patch) + 1 else array[None]
        warp, outside = self._warp(name, patch, entropy), self.outside.get(name, 0)
        if kind == "mask":
            boxes = torch.from_numpy(np.array(layers, dtype=_torch_type(array.dtype), order="C"))
            return torch.stack([move_nearest(box, warp, centre, patch, outside=outside) for box in boxes])  # type: ignore[arg-type]
        box = torch.from_numpy(np.array(layers, dtype=np.float32, order="C"))
        image = move_image(box, warp, centre, patch, outside=outside)[None].clone()  # type: ignore[arg-type]
        for number, operation in self._operations(name):
            if isinstance(operation, Intensity):
                augment_intensity_(image, Recipe((operation,)), [_generator(entropy, number)])
        return image[0]

    def _change_together_(self, moved: dict[str, Tensor], targets: Mapping[str, TargetType], entropy: Any) -> None:
        """Apply the operations that change labels: to all images as channels of one, and to all masks."""
        for number, operation in enumerate(self.recipe.operations):
            if not isinstance(operation, Joint) or LABEL not in moved:
                continue
            skipped = self.skip_targets.get(type(operation).__name__, ())
            names = [name for name in targets if name not in skipped]
            images = [name for name in names if targets[name] != "mask"]
            stacked = torch.cat([moved[name] for name in images])[None]
            label, further = moved[LABEL][:1], moved[LABEL][1:][None]
            masks = {name: moved[name][None] for name in names if name not in (*images, LABEL)}
            patches = Patches(stacked, label, label != 0, {**masks, LABEL: further})
            augment_together_(patches, Recipe((operation,)), [_generator(entropy, number)])
            parts = torch.split(stacked[0], [len(moved[name]) for name in images])
            moved |= dict(zip(images, parts, strict=True))


def _checked_size(size: Sequence[int] | None) -> Size | None:
    """Return ``input_size`` as a tuple; raise ``ConfigError`` if it is not 2 or 3 whole numbers above 0."""
    edges = tuple(size) if isinstance(size, Iterable) else size
    if edges is None:
        return None
    if not isinstance(edges, tuple) or len(edges) not in (2, 3) or any(edge != int(edge) or edge < 1 for edge in edges):
        raise ConfigError(
            f"Compose: found input_size {size}, expected 2 or 3 edges in voxels, such as (8, 256, 256). Give the edges "
            "of the patches, without channels."
        )
    return tuple(map(int, edges))


def _check_outside(name: str, value: float, dtype: np.dtype[Any], kind: TargetType) -> None:
    """Raise ``ConfigError`` if a mask of ``dtype`` cannot hold the value of what lies outside."""
    if kind == "mask" and not (np.isfinite(value) and np.array(value).astype(dtype) == value):
        raise ConfigError(
            f"Compose: outside gives {name!r} the value {value}, expected one of the type {dtype} of this mask. Give "
            "another value, or a mask of another type."
        )


def _centre_inside(warp: Warp, patch: Size, shape: Size) -> tuple[float, ...]:
    """Return the source position of the patch's centre: that of the sample, moved so that all that is read is inside.

    Along an axis on which the sample is too small for that, it is the centre.
    """
    # An even edge within an odd one has no exact centre: the voxel before it is taken.
    middles = [(edge - size) // 2 + (size - 1) / 2 for edge, size in zip(shape, patch, strict=True)]
    centre = []
    for low, high, middle, edge in zip(*source_box(warp, middles, patch), middles, shape, strict=True):
        move = max(-low, 0) - max(high - edge, 0) if high - low <= edge else 0
        centre.append(middle + move)
    return tuple(centre)


def _generator(entropy: Any, number: int) -> Generator:
    state = SeedSequence(entropy, spawn_key=(number,)).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> np.uint64(1)))


def _torch_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a type that torch knows, which holds all values of ``dtype``."""
    wider = {"b1": np.uint8, "u2": np.int32, "u4": np.int64, "u8": np.int64}
    return np.dtype(wider.get(f"{dtype.kind}{dtype.itemsize}", dtype.newbyteorder("=")))


def _as_array(moved: Tensor, before: NDArray[Any], kind: TargetType) -> NDArray[Any]:
    """Return a target (C, *P) as an array, without channels if it had none; a mask of the type it had."""
    array: NDArray[Any] = moved.numpy()
    array = array if before.ndim == array.ndim else array[0]
    return array.astype(before.dtype, copy=False) if kind == "mask" else array
