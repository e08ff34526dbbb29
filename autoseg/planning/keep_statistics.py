"""Reuse of the former plan's intensity statistics when the new ones are nearly the same.

Otherwise one corrected label would make every cached case of a CT data set stale.
"""

from __future__ import annotations

from autoseg.core.fingerprint import IntensityProperties
from autoseg.core.plan import Plan

TOLERANCE = 0.05
"""Largest difference, as a share of the standard deviation.

A network does not notice such a shift of CT intensities."""


def keep_intensities(planned: Plan, former: Plan | None) -> Plan:
    """Return ``planned`` with the intensity statistics of ``former``, if those of all channels are nearly the same.

    Cached CT cases hold intensities that are normalised by the statistics of all annotated foreground. Each new plan is
    compared with the statistics in use, so small changes do not add up.

    Parameters
    ----------
    planned
        The new plan; returned unchanged if the statistics or the channel names differ.
    former
        The plan that it replaces; None if there is none.
    """
    if former is None or former.channel_names != planned.channel_names:
        return planned
    if not all(map(_is_near, planned.intensities, former.intensities)):
        return planned
    return planned.model_copy(update={"intensities": former.intensities})


def _is_near(planned: IntensityProperties, former: IntensityProperties) -> bool:
    """Whether mean, standard deviation and both percentiles differ by at most ``TOLERANCE`` standard deviations."""
    limit = TOLERANCE * former.std
    names = ("mean", "std", "percentile_00_5", "percentile_99_5")  # what normalisation uses
    return all(abs(getattr(planned, name) - getattr(former, name)) <= limit for name in names)
