"""Disagreements of an annotation with a model that was not trained on it: likely faults of the annotation first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from autoseg.core.arrays import BoolArray


@dataclass(frozen=True)
class DisputedVoxels:
    """Annotated voxels of a case for which a model says a class that the annotation excludes; n may be 0."""

    index: NDArray[np.integer[Any]]
    """(n, 3): z, y, x in the axes of the file."""
    drawn: NDArray[np.integer[Any]]
    """(n,) code of what was drawn: the index of a class, or that of a further label set."""
    predicted: NDArray[np.integer[Any]]
    """(n,) index of the class that is predicted."""
    probability: NDArray[np.floating[Any]]
    """(n,) of the predicted class, 0 to 1."""

    @classmethod
    def join(cls, parts: Sequence[DisputedVoxels]) -> DisputedVoxels:
        """Put parts of a case together; none give no voxels."""
        if not parts:
            classes, shares = np.zeros(0, dtype=np.uint16), np.zeros(0, dtype=np.float32)
            return cls(np.zeros((0, 3), dtype=np.int32), classes, classes, shares)
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("index", "drawn", "predicted", "probability")
            )
        )


class Disagreement(BaseModel):
    """A connected group of voxels drawn alike, for which the model says one class that this excludes."""

    model_config = ConfigDict(frozen=True)

    case: str
    z: int
    """Of the voxel of the group that is nearest to its centre of mass; axes and numbers of the file, from 0."""
    y: int
    x: int
    drawn: str
    """Name of the class, or what a set says: "liver or tumour", "not liver"."""
    predicted: str
    n_voxels: int
    mean_probability: float
    """Of the predicted class over the group, 0 to 1: how sure the model is that the annotation is wrong."""
    seen_in_training: bool = False
    """Whether the model was trained on the case: it then agrees with annotation that it has learnt by heart."""
    predicted_dice: float | None = None
    """Of the model in this case, the lower of the two classes, 0 to 1: how far it can be trusted; None if unknown."""

    @property
    def doubt(self) -> float:
        """How likely the annotation is at fault: the mean probability, times the predicted Dice if it is known."""
        return self.mean_probability * (1.0 if self.predicted_dice is None else self.predicted_dice)


def set_names(label_sets: BoolArray, class_names: Sequence[str]) -> tuple[str, ...]:
    """Return in words what each row of ``label_sets`` (N, K) says: "liver", "liver or tumour", "not liver"."""

    def name(members: BoolArray) -> str:
        inside, outside = ([class_names[int(index)] for index in np.flatnonzero(part)] for part in (members, ~members))
        is_short = bool(members[0]) and len(outside) < len(inside)
        return f"not {' or '.join(outside)}" if is_short else " or ".join(inside)

    return tuple(name(members) for members in list(label_sets))


def group_disputed(
    case: str,
    voxels: DisputedVoxels,
    drawn_names: Sequence[str],
    class_names: Sequence[str],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    seen_in_training: bool = False,
    dice_of: Sequence[float | None] = (),
) -> tuple[Disagreement, ...]:
    """Join disputed voxels that touch (by face, edge or corner), drawn and predicted alike; see :func:`surest_first`.

    Parameters
    ----------
    drawn_names
        By code, see :func:`set_names`.
    class_names
        By class index.
    spacing
        mm per z, y, x: for the voxel nearest to the centre.
    seen_in_training
        Whether the model was trained on the case.
    dice_of
        Predicted Dice of each class in this case, by class index; None for background and where it is unknown. () if
        all are unknown.
    """
    groups: list[Disagreement] = []
    pairs = np.stack((voxels.drawn, voxels.predicted), axis=-1)
    for drawn, predicted in np.unique(pairs, axis=0):
        chosen = np.flatnonzero((voxels.drawn == drawn) & (voxels.predicted == predicted))
        components = _components(voxels.index[chosen])
        order = np.argsort(components, kind="stable")
        for members in np.split(chosen[order], np.flatnonzero(np.diff(components[order])) + 1):
            z, y, x = _central(voxels.index[members], np.asarray(spacing))
            groups.append(
                Disagreement(
                    case=case, z=z, y=y, x=x,
                    drawn=drawn_names[drawn], predicted=class_names[predicted], n_voxels=len(members),
                    mean_probability=float(voxels.probability[members].mean(dtype=np.float64)),
                    seen_in_training=seen_in_training, predicted_dice=_lower(dice_of, (int(drawn), int(predicted))),
                )
            )  # fmt: skip
    return surest_first(groups)


def surest_first(groups: Iterable[Disagreement]) -> tuple[Disagreement, ...]:
    """Sort by :attr:`Disagreement.doubt`, to three digits; then larger groups first; then case and place.

    Confidence comes before size, or large regions of which the model is unsure would hide the small slips of which it
    is sure. In a case that the model segments poorly it is often sure and wrong, so that its faults there would fill
    the top of the list if the predicted Dice did not count.
    """

    def key(group: Disagreement) -> tuple[float, int, str, int, int, int]:
        return (-round(group.doubt, 3), -group.n_voxels, group.case, group.z, group.y, group.x)

    return tuple(sorted(groups, key=key))


def _lower(dice_of: Sequence[float | None], classes: Sequence[int]) -> float | None:
    """Return the lowest known Dice of those of ``classes`` that have one; codes of further label sets have none."""
    known = [dice for index in classes if index < len(dice_of) and (dice := dice_of[index]) is not None]
    return min(known, default=None)


def _components(index: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """(n, 3) -> (n,) number of the connected component, within the box that holds the voxels."""
    low = index.min(axis=0)
    mask = np.zeros(index.max(axis=0) - low + 1, dtype=bool)
    places = tuple((index - low).T)
    mask[places] = True
    numbers: NDArray[np.int32] = ndimage.label(mask, structure=np.ones((3, 3, 3)))[0][places]
    return numbers


def _central(index: NDArray[np.integer[Any]], spacing: NDArray[np.float64]) -> tuple[int, int, int]:
    """Return the voxel (z, y, x) of ``index`` (n, 3) nearest to the centre of mass; ``spacing`` is (3,), mm."""
    distance = (((index - index.mean(axis=0)) * spacing) ** 2).sum(axis=1)
    z, y, x = (int(edge) for edge in index[int(np.argmin(distance))])
    return (z, y, x)
