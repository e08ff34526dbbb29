"""Operations for electron microscopy, each of which a setting switches on or off."""

from __future__ import annotations

from typing import Any

from autoseg.augmentation.copy_paste import CopyPaste
from autoseg.augmentation.cut_blur import CutBlur
from autoseg.augmentation.cut_noise import CutNoise
from autoseg.augmentation.draws import Parameters
from autoseg.augmentation.elastic import Elastic
from autoseg.augmentation.flip import Flip
from autoseg.augmentation.grayscale import Grayscale
from autoseg.augmentation.misalignment import MisAlignment
from autoseg.augmentation.missing_parts import MissingParts
from autoseg.augmentation.missing_section import MissingSection
from autoseg.augmentation.mixup import Mixup
from autoseg.augmentation.motion_blur import MotionBlur
from autoseg.augmentation.rescale import Rescale
from autoseg.augmentation.turn import Turn


class EmOperations(Parameters):
    """The operations of the recipe ``em`` with their parameters, in the order in which they are listed.

    Those that move voxels come first; noise and artefacts then follow in the order of the reference, Grayscale last.
    Defaults are those of PyTorch Connectomics.
    """

    rotate: Turn = Turn()
    rescale: Rescale = Rescale()
    flip: Flip = Flip()
    elastic: Elastic = Elastic()
    missing_section: MissingSection = MissingSection()
    misalignment: MisAlignment = MisAlignment()
    cut_noise: CutNoise = CutNoise()
    cut_blur: CutBlur = CutBlur()
    motion_blur: MotionBlur = MotionBlur()
    missing_parts: MissingParts = MissingParts()
    grayscale: Grayscale = Grayscale()
    copy_paste: CopyPaste = CopyPaste()
    mixup: Mixup = Mixup()

    def enabled_operations(self, n_axes: int) -> tuple[Any, ...]:
        """Return the operations that are enabled, for patches of ``n_axes`` axes (2 or 3), in their order."""
        operations = [getattr(self, name) for name in EmOperations.model_fields]
        if self.flip.enabled:
            axes = tuple(axis for axis in self.flip.axes if axis < n_axes)
            operations[operations.index(self.flip)] = self.flip.model_copy(update={"axes": axes})
        return tuple(
            operation
            for operation in operations
            if operation.enabled and (n_axes == 3 or not isinstance(operation, (MissingSection, MisAlignment)))
        )


DEFAULT_EM = EmOperations()
