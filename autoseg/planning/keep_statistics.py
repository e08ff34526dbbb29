"""Keep a plan's intensity statistics while the data hardly move them, so that a corrected label costs one case."""

from __future__ import annotations

from autoseg.core.fingerprint import IntensityProperties
from autoseg.core.plan import Plan

TOLERANCE = 0.05
"""Of the standard deviation; a network does not notice such a shift of what CT is clipped to and scaled by."""


def keep_intensities(planned: Plan, former: Plan | None) -> Plan:
    """Return ``planned`` with the intensity statistics of the plan that it replaces, if all are nearly the same.

    CT caches hold intensities normalised by the statistics of all annotated foreground. Without this, a single voxel
    drawn in one case would make every case of a CT data set stale. Statistics are compared with those that are kept,
    so small changes do not add up. None: there is no former plan.
    """
    if former is None or former.channel_names != planned.channel_names:
        return planned
    if not all(map(_is_near, planned.intensities, former.intensities)):
        return planned
    return planned.model_copy(update={"intensities": former.intensities})


def _is_near(one: IntensityProperties, kept: IntensityProperties) -> bool:
    limit = TOLERANCE * kept.std
    names = ("mean", "std", "percentile_00_5", "percentile_99_5")  # what normalisation uses
    return all(abs(getattr(one, name) - getattr(kept, name)) <= limit for name in names)
