"""Summary of an evaluation of a regression, and its files: the places of the summary of classes, with other metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from autoseg.core.atomic import write_json
from autoseg.core.means import mean_known
from autoseg.evaluation.number_metrics import ErrorSums, NumberMetrics
from autoseg.evaluation.summary import means_path, write_rows

METRICS = ("RMSE", "MAE", "Pearson", "R2")
MeanMetrics = dict[str, float | None]
"""Name of a metric -> its mean; None if it is null everywhere."""


class NumberCase(BaseModel):
    """Metrics of one case."""

    model_config = ConfigDict(frozen=True)

    case: str
    reference_file: str
    prediction_file: str
    metrics: dict[str, NumberMetrics]
    """Name of a target -> its metrics."""
    not_scored: dict[str, str] = {}
    """Name of a target -> reason why a metric of it is null."""


class NumberSummary(BaseModel):
    """Metrics of a folder of predicted numbers. What cannot be computed is null, never NaN."""

    model_config = ConfigDict(frozen=True)

    foreground_mean: MeanMetrics
    """Mean over targets of ``mean``; of several targets R2 and Pearson alone mean something."""
    mean: dict[str, MeanMetrics]
    """Target -> means over the cases in which a metric is not null."""
    all_voxels: dict[str, NumberMetrics]
    """Target -> metrics over the known voxels of all cases together."""
    metric_per_case: tuple[NumberCase, ...]
    """Sorted by case."""
    n_cases: int
    """Number of cases that were compared, those without a known voxel included."""
    n_cases_per_head: dict[str, int]
    """Target -> number of cases with a known voxel."""
    names: dict[str, str]
    """Target -> its name, which is the same."""
    not_scored: dict[str, str]
    """Target of which a metric over all voxels is null -> reason."""
    missing: tuple[str, ...] = ()
    """Cases with a reference but without a prediction; not scored."""
    extra: tuple[str, ...] = ()
    """Predictions without a reference; not scored."""
    faults: tuple[str, ...] = ()
    """Cases that could not be scored: one message each."""
    warnings: tuple[str, ...] = ()
    """Problems of cases that were scored."""
    seen_in_training: tuple[str, ...] = ()
    """Scored cases on which the weights were trained, as far as known. Their scores are better than on new images."""
    command: str | None = None
    """Command line that scored; None if it was no command."""

    def write(self, path: str | Path) -> None:
        """Write ``summary.json``, atomically."""
        write_json(Path(path), self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return self.model_dump(mode="json")

    def to_csv(self, path: str | Path) -> None:
        """Write one row per case and target, and ``<name>_means.csv`` with one row per target; atomically."""
        write_rows(Path(path), _case_rows(self))
        write_rows(means_path(Path(path)), _mean_rows(self))


def summarise_numbers(
    cases: Sequence[tuple[NumberCase, Mapping[str, ErrorSums]]],
    targets: Sequence[str],
    *,
    missing: Sequence[str] = (),
    extra: Sequence[str] = (),
    faults: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> NumberSummary:
    """Average metrics over cases, and pool the voxels of all cases. ``cases``: metrics and sums (by target) of each."""
    ordered = sorted((case for case, _ in cases), key=lambda case: case.case)
    pooled = {name: ErrorSums.pooled(sums[name] for _, sums in cases) for name in targets}
    mean = {
        name: {metric: mean_known([getattr(case.metrics[name], metric) for case in ordered]) for metric in METRICS}
        for name in targets
    }
    return NumberSummary(
        foreground_mean={metric: mean_known([values[metric] for values in mean.values()]) for metric in METRICS},
        mean=mean,
        all_voxels={name: sums.metrics for name, sums in pooled.items()},
        metric_per_case=tuple(ordered),
        n_cases=len(ordered),
        n_cases_per_head={name: sum(case.metrics[name].n_known > 0 for case in ordered) for name in targets},
        names={name: name for name in targets},
        not_scored={name: f"{name}: {reason}" for name, sums in pooled.items() if (reason := sums.reason) is not None},
        missing=tuple(missing),
        extra=tuple(extra),
        faults=tuple(faults),
        warnings=tuple(warnings),
    )


def _case_rows(summary: NumberSummary) -> Iterator[dict[str, object]]:
    for case in summary.metric_per_case:
        for name, metrics in case.metrics.items():
            yield {"case": case.case, "target": name, **metrics.model_dump()}


def _mean_rows(summary: NumberSummary) -> Iterator[dict[str, object]]:
    """Yield one row per target: means over cases, then metrics over all voxels."""
    for name, means in summary.mean.items():
        pooled = summary.all_voxels[name].model_dump()
        over_all = {f"{metric} over all voxels": value for metric, value in pooled.items()}
        yield {"target": name, **means, "n_cases": summary.n_cases_per_head[name], **over_all}
