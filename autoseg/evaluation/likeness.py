"""Likeness of an image to the training images: distances of its features, and the level above which it is flagged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

QUANTILES = (0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995)
"""Quantiles of the normalised intensities of a channel."""
LEAST_CASES = 4
"""Number of training cases from which others are compared with them."""
FALSE_ALARMS = 0.05
"""Share of images like the training images that may be flagged."""
LEAST_FACTORS = {"spacing": 1.2, "field of view": 1.5}
"""Factor from the median of the training cases that is not counted as unlike, however little these differ."""
_LEAST_DEVIATION = 0.05
"""Smallest standard deviation of a feature, so that one that was equal in all cases does not decide alone."""

Part = Literal["intensity", "texture", "spacing", "field of view"]
Array = NDArray[np.float64]


class CaseFeatures(BaseModel):
    """Features of an image, from which its likeness to the training images is judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing: tuple[float, ...]
    """mm per axis of a patch, (z, y, x) or (y, x) of the plan; pixels count as 1 mm where no spacing is stated."""
    size: tuple[float, ...]
    """mm along the same axes, after the crop to the part that is not empty."""
    intensity: tuple[tuple[float, ...], ...]
    """Per channel, the ``QUANTILES`` of its normalised intensities."""
    texture: tuple[tuple[float, ...], ...]
    """Per channel, the logarithm of the variance in each octave of detail, finest first."""

    def vector(self, part: Part) -> Array:
        """Return the numbers of a part (n,); spacing and field of view as logarithms."""
        if part in ("spacing", "field of view"):
            return np.log(self.spacing if part == "spacing" else self.size)
        return np.array(self.intensity if part == "intensity" else self.texture).ravel()


def mean_features(each: Sequence[CaseFeatures]) -> CaseFeatures:
    """Return the means of the features of at least one image: of a stack of slices; of one image they are its own."""
    if len(each) == 1:
        return each[0]

    def mean(values: Iterable[Any]) -> Any:
        return np.mean([*values], axis=0).tolist()

    return CaseFeatures(
        spacing=mean(features.spacing for features in each),
        size=mean(features.size for features in each),
        intensity=mean(features.intensity for features in each),
        texture=mean(features.texture for features in each),
    )


class Distance(BaseModel):
    """Mahalanobis distance of features to those of the training cases, divided by its level."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    parts: tuple[Part, ...]
    """Features that it joins."""
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    inverse: tuple[tuple[float, ...], ...]
    """Inverse of the shrunk covariance of standardised features, divided by their number."""
    level: float
    """Distance that counts as 1."""

    def ratio(self, features: CaseFeatures) -> float:
        """Return the distance of a case in units of the level."""
        return self.distance(joined(features, self.parts)) / self.level

    def distance(self, vector: Array) -> float:
        """Return the distance of joined features (n,)."""
        standardised = (vector - self.mean) / self.deviation
        return math.sqrt(max(0.0, float(standardised @ np.array(self.inverse) @ standardised)))


class Verdict(BaseModel):
    """Whether a case is like the training cases."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: float
    """Distance to the training cases; flagged above 1."""
    is_unlike: bool
    reason: str
    """What is unlike, in words; "" if nothing is."""


class Likeness(BaseModel):
    """The training cases' features as distances, each with its level."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_cases: int
    """Training cases behind it."""
    channels: tuple[str, ...]
    distances: tuple[Distance, ...] = ()
    """() if there were too few cases."""
    level: float = 1.0
    """Largest ratio of all distances above which a case is flagged."""
    lowest: CaseFeatures | None = None
    """Smallest value of each feature among the training cases, for the reasons."""
    highest: CaseFeatures | None = None
    reason: str | None = None
    """Why no case can be judged; None if it can."""

    def judge(self, features: CaseFeatures) -> Verdict | None:
        """Return the verdict on a case; None if there were too few training cases."""
        if self.lowest is None or self.highest is None:
            return None
        ratios = {distance.name: distance.ratio(features) / self.level for distance in self.distances}
        score = max(ratios.values())
        named = [name for name, ratio in sorted(ratios.items(), key=lambda item: -item[1]) if ratio > 1]
        return Verdict(
            score=score, is_unlike=score > 1, reason="; ".join(self._reason(name, features) for name in named)
        )

    def _reason(self, name: str, features: CaseFeatures) -> str:
        """Return the name of a distance, and the feature that lies farthest from the training cases, with its value."""
        distance = next(item for item in self.distances if item.name == name)
        values = joined(features, distance.parts)
        index = int(np.argmax(np.abs(values - distance.mean) / distance.deviation))
        part, place = _place(features, distance.parts, index)
        low, high = (item.vector(part)[place] for item in (self.lowest, self.highest) if item is not None)
        value = features.vector(part)[place]
        if part in LEAST_FACTORS:
            n_axes = len(features.vector(part))
            unit, axis = " mm" if n_axes == 3 else "", "zyx"[-n_axes:][place]
            value, low, high = math.exp(value), math.exp(low), math.exp(high)
            what = f"{part} along {axis}"
        else:
            per_channel = len(features.vector(part)) // len(self.channels)
            channel, number = self.channels[place // per_channel], place % per_channel
            unit, what = "", f"{_feature_name(part, number)} of channel {channel}"
        return f"{name}: {what} is {value:.3g}{unit}, in the training cases {low:.3g} to {high:.3g}{unit}"


DISTANCES: tuple[tuple[str, tuple[Part, ...]], ...] = (
    ("spacing", ("spacing",)),
    ("field of view", ("field of view",)),
    ("intensity", ("intensity",)),
    ("appearance", ("intensity", "texture")),
)
"""Names of the distances, and the features that each joins."""


def fit_likeness(cases: Mapping[str, CaseFeatures], channels: Sequence[str]) -> Likeness:
    """Describe the training cases, so that others can be compared with them.

    Parameters
    ----------
    cases
        Training case -> its features. With fewer than ``LEAST_CASES`` nothing is fitted, and the reason says so.
    channels
        Names of the channels.

    Notes
    -----
    Each case is compared with the others to find out how far apart training cases are. The level of a distance is the
    ceil((n + 1) * 0.95)-th smallest of these n distances, and the largest if n < 19. Several distances together would
    flag more than one does, so the level of their largest ratio follows by the same rule from the training cases, each
    in units of the levels that the others have without it. About 5 % of cases like the training cases are then flagged,
    and at most about 1 in n + 1 if n < 19. Covariances are shrunk towards a multiple of the identity (Ledoit and Wolf
    2004, J. Multivariate Anal. 88:365), since cases are few; the spacing and the field of view are compared with the
    median, and factors up to ``LEAST_FACTORS`` are never flagged.
    """
    names = tuple(channels)
    if len(cases) < LEAST_CASES:
        few = f"{len(cases)} training cases with features, at least {LEAST_CASES} are needed"
        return Likeness(n_cases=len(cases), channels=names, reason=few)
    features = list(cases.values())
    distances, ratios = [], []
    for name, parts in DISTANCES:
        vectors = np.stack([joined(item, parts) for item in features])
        apart = np.array([_left_out(vectors, index, parts) for index in range(len(vectors))])
        least = math.log(LEAST_FACTORS.get(name, 1.0 + 1e-6))
        level = max(upper_level(apart), least)
        distances.append(_distance(name, parts, vectors).model_copy(update={"level": level}))
        of_others = [upper_level(np.delete(apart, index)) for index in range(len(apart))]
        ratios.append(apart / np.maximum(of_others, least))
    return Likeness(
        n_cases=len(cases),
        channels=names,
        distances=tuple(distances),
        level=max(1.0, upper_level(np.max(ratios, axis=0))),
        lowest=_extreme(features, np.min),
        highest=_extreme(features, np.max),
    )


def joined(features: CaseFeatures, parts: Sequence[Part]) -> Array:
    """Return the features of several parts as one vector (n,)."""
    return np.concatenate([features.vector(part) for part in parts])


def upper_level(values: Array) -> float:
    """Return the ceil((n + 1) * 0.95)-th smallest of n > 0 values, and the largest if n is too small for it."""
    rank = min(len(values), math.ceil((len(values) + 1) * (1 - FALSE_ALARMS)))
    return float(np.sort(values)[rank - 1])


def shrunk_covariance(standardised: Array) -> Array:
    """Return the covariance (p, p) of standardised features (n, p) of mean 0, shrunk by the rule of Ledoit and Wolf."""
    n, p = standardised.shape
    sample = standardised.T @ standardised / n
    target = np.trace(sample) / p * np.eye(p)
    spread = float(((sample - target) ** 2).sum())
    lengths = (standardised**2).sum(axis=1)
    noise = (float((lengths**2).sum()) / n - float((sample**2).sum())) / n  # mean of |row row' - sample|^2, over n
    weight = 1.0 if spread == 0 else min(1.0, noise / spread)
    shrunk: Array = weight * target + (1 - weight) * sample
    return shrunk


def _left_out(vectors: Array, index: int, parts: tuple[Part, ...]) -> float:
    """Return the distance of one case to the others."""
    return _distance("", parts, np.delete(vectors, index, axis=0)).distance(vectors[index])


def _distance(name: str, parts: tuple[Part, ...], vectors: Array) -> Distance:
    """Fit a distance with level 1 to features (n, p)."""
    p = vectors.shape[1]
    if parts[0] in LEAST_FACTORS:
        mean, deviation, inverse = np.median(vectors, axis=0), np.ones(p), np.eye(p)
    else:
        mean, deviation = vectors.mean(axis=0), np.maximum(vectors.std(axis=0, ddof=1), _LEAST_DEVIATION)
        covariance = shrunk_covariance((vectors - mean) / deviation)
        floor = 1e-3 * max(1.0, float(np.trace(covariance)) / p)
        inverse = np.linalg.inv(covariance + floor * np.eye(p)) / p
    return Distance(
        name=name,
        parts=parts,
        mean=tuple(mean.tolist()),
        deviation=tuple(deviation.tolist()),
        inverse=tuple(map(tuple, inverse.tolist())),
        level=1.0,
    )


def _place(features: CaseFeatures, parts: Sequence[Part], index: int) -> tuple[Part, int]:
    """Return the part in which an index of joined features lies, and the index within it."""
    for part in parts:
        length = len(features.vector(part))
        if index < length:
            return part, index
        index -= length
    raise IndexError(index)


def _feature_name(part: Part, number: int) -> str:
    if part == "intensity":
        return f"the {100 * QUANTILES[number]:g} % quantile of the normalised intensity"
    return f"the detail of {2**number} to {2 ** (number + 1)} voxels (log variance)"


def _extreme(features: Sequence[CaseFeatures], pick: Callable[..., Any]) -> CaseFeatures:
    """Return the smallest or largest value of each feature; ``pick`` is ``np.min`` or ``np.max``."""
    names = CaseFeatures.model_fields
    return CaseFeatures.model_validate(
        {name: pick([getattr(item, name) for item in features], axis=0).tolist() for name in names}
    )
