"""Prediction of the parts of a volume by the workers of a cluster, each with its own models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from autoseg.core.errors import AutosegError, ConfigError
from autoseg.core.parallel import Cluster, map_unordered
from autoseg.core.progress import Progress, silent
from autoseg.core.resources import GB, free_memory
from autoseg.inference.folder import PredictionReport
from autoseg.inference.predict_volume import predict_volume
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.volume_memory import resident_memory
from autoseg.inference.volume_options import VolumeOptions
from autoseg.inference.volume_units import Part

PARTS_PER_WORKER = 4
"""Least number of parts for each worker, so that all end at about the same time."""
PART_VOXELS = 2**30
"""Largest size of a part, whose beginning costs little then, and whose loss not much."""


@dataclass(frozen=True, slots=True)
class PartPredictor:
    """Prediction of one part of a volume in a worker; arguments as for :func:`.predict_volume.predict_volume`."""

    load: Callable[[], PredictorGroup]
    """Returns the group, which the worker keeps."""
    locations: tuple[str, ...]
    output: Path
    options: VolumeOptions
    n_per_machine: int
    """Workers that share the memory of a machine, if ``options`` do not limit it."""
    save_probabilities: bool
    save_uncertainty: bool
    instances: str | None

    def __call__(self, part: Part) -> None:
        """Write the shards of a part that are not written yet."""
        predict_volume(
            self.load(), self.locations, self.output,
            replace(self.options, part=part, memory_gb=self._memory_gb(), is_helping=True),
            save_probabilities=self.save_probabilities, save_uncertainty=self.save_uncertainty,
            instances=self.instances,
        )  # fmt: skip

    def _memory_gb(self) -> float | None:
        """Return the limit for this worker: as given, otherwise its share of half of what is free."""
        free = free_memory()
        if self.options.memory_gb is not None or free is None:
            return self.options.memory_gb
        return (free / 2 / self.n_per_machine + resident_memory()) / GB


def predict_by_workers(
    cluster: Cluster,
    group: PredictorGroup,
    locations: Sequence[str],
    output: Path,
    options: VolumeOptions,
    *,
    save_probabilities: bool = False,
    save_uncertainty: bool = False,
    instances: str | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> PredictionReport:
    """Predict a volume as :func:`.predict_volume.predict_volume` does, with the workers of a cluster.

    The result is the same. This process begins the prediction, records it and concludes it. ``progress`` is called with
    (parts done, parts, name of the part). A part that fails does not stop the others; its error is raised then, and a
    further run predicts only what is missing.

    Raises ``ConfigError`` if the group cannot be loaded again, or ``options`` name a single part.
    """
    if group.load_again is None:
        raise ConfigError("predict: found models of this process alone, expected folders, which workers can load.")
    if options.part.count > 1:
        raise ConfigError(
            f"--part {options.part.index}/{options.part.count}: found with --cluster, which deals out parts itself, "
            "expected one of them. Leave out --part."
        )
    remote = PartPredictor(
        group.load_again, tuple(locations), output, options, cluster.n_per_machine, save_probabilities,
        save_uncertainty, instances,
    )  # fmt: skip
    return predict_volume(
        group, locations, output, options, save_probabilities=save_probabilities, save_uncertainty=save_uncertainty,
        instances=instances, overwrite=overwrite, elsewhere=partial(_predict_parts, cluster, remote), progress=progress,
    )  # fmt: skip


def _predict_parts(cluster: Cluster, predict: PartPredictor, n_voxels: int, progress: Progress) -> None:
    """Let a cluster predict all parts of a volume of so many voxels; raise the first error of a part at the end."""
    count = max(math.ceil(n_voxels / PART_VOXELS), PARTS_PER_WORKER * cluster.n_workers)
    parts = [Part(index, count) for index in range(1, count + 1)]
    errors: list[AutosegError] = []
    for done, (index, result) in enumerate(map_unordered(predict, parts, workers=cluster), 1):
        if isinstance(result, AutosegError):
            errors.append(result)
        progress(done, count, f"part {parts[index].index}")
    if errors:
        raise errors[0]
