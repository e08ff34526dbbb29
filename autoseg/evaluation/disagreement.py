"""Disagreements of an annotation with a model that was not trained on it: likely faults of the annotation first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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


class ExpectedDice(NamedTuple):
    """Dice to expect of a model for a class in a case, 0 to 1."""

    dice: float | None
    usual: float | None
    """Mean Dice of the class in cases that the model was not trained on; None if unknown."""


UNKNOWN = ExpectedDice(None, None)


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
    """Dice to expect of the model in this case, of the class of the two in which it is worse; None if unknown."""
    usual_dice: float | None = None
    """Mean Dice of that class in cases that the model was not trained on; None if unknown."""

    @property
    def doubt(self) -> float:
        """How likely the annotation is at fault, 0 to 1.

        The mean probability over the group and one more voxel of probability 0, so that single voxels at borders come
        after groups; times the predicted Dice as a share of the usual one, where it is lower.
        """
        probability = self.mean_probability * self.n_voxels / (self.n_voxels + 1)
        return probability * (1.0 if self.predicted_dice is None else _share(self.predicted_dice, self.usual_dice))


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
    dice_of: Sequence[ExpectedDice | None] = (),
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
        What is expected of each class in this case, by class index; None for background and where it is unknown. () if
        all are unknown.
    """
    groups: list[Disagreement] = []
    pairs = np.stack((voxels.drawn, voxels.predicted), axis=-1)
    for drawn, predicted in np.unique(pairs, axis=0):
        chosen = np.flatnonzero((voxels.drawn == drawn) & (voxels.predicted == predicted))
        components = _components(voxels.index[chosen])
        order = np.argsort(components, kind="stable")
        for members in np.split(chosen[order], np.flatnonzero(np.diff(components[order])) + 1):
            worse = _worse(dice_of, (int(drawn), int(predicted)))
            z, y, x = _central(voxels.index[members], np.asarray(spacing))
            groups.append(
                Disagreement(
                    case=case, z=z, y=y, x=x,
                    drawn=drawn_names[drawn], predicted=class_names[predicted], n_voxels=len(members),
                    mean_probability=float(voxels.probability[members].mean(dtype=np.float64)),
                    seen_in_training=seen_in_training, predicted_dice=worse.dice, usual_dice=worse.usual,
                )
            )  # fmt: skip
    return surest_first(groups)


def surest_first(groups: Iterable[Disagreement]) -> tuple[Disagreement, ...]:
    """Sort by :attr:`Disagreement.doubt`, to three digits; then larger groups first; then case and place.

    Confidence comes before size, or large regions of which the model is unsure would hide the small slips of which it
    is sure. In a case that the model segments poorly it is often sure and wrong, so that its faults there would fill
    the top of the list if the predicted Dice did not count. Differences above the usual Dice do not count, since they
    say little about one place.
    """

    def key(group: Disagreement) -> tuple[float, int, str, int, int, int]:
        return (-round(group.doubt, 3), -group.n_voxels, group.case, group.z, group.y, group.x)

    return tuple(sorted(groups, key=key))


def _share(dice: float, usual: float | None) -> float:
    """Return a Dice as a share of the usual one, at most 1; the Dice itself if the usual one is unknown or 0."""
    return min(1.0, dice / usual) if usual else dice


def _worse(dice_of: Sequence[ExpectedDice | None], classes: Sequence[int]) -> ExpectedDice:
    """Return the lowest expectation of ``classes``, as a share of the usual; codes of further label sets have none."""
    known = [dice for index in classes if index < len(dice_of) and (dice := dice_of[index]) is not None]
    return min(known, key=lambda item: 1.0 if item.dice is None else _share(item.dice, item.usual), default=UNKNOWN)


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
