"""Model folders and settings, from which every process of a prediction loads the same group of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from autoseg.core.errors import ConfigError
from autoseg.inference.predictor import Predictor
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.tasks.separation import SeparationSettings


@dataclass(frozen=True, slots=True)
class GroupSource:
    """Origin of a group of models; fields as the parameters of :func:`autoseg.inference.predict_images`."""

    models: tuple[str | Path | Predictor, ...]
    folds: tuple[int | str, ...] | None
    device: str
    checkpoint: str
    mirror: bool
    step: float | None
    fast: bool
    method: str | None = None
    """Method by which a model of affinities parts objects, whatever its folder says; None: as the folder says."""
    run: str = field(default_factory=lambda: uuid4().hex)
    """Differs between two predictions, because the folders may be trained again between them."""

    def load(self) -> PredictorGroup:
        """Return the group.

        Raises ``ModelError`` if there is no model, a folder cannot be used, or the models do not fit together, and
        ``ConfigError`` for a wrong setting.
        """
        predictors = tuple(map(self._predictor, self.models))
        return PredictorGroup(predictors, self._separation(predictors))

    def _separation(self, predictors: Sequence[Predictor]) -> SeparationSettings | None:
        """Return the settings with ``method``, by which alone it is checked whether the models can part objects."""
        rules = [predictor.model.dataset.labels.instances for predictor in predictors[:1]]
        if self.method not in ("watershed", "mutex") or not any(rule is not None and rule.offsets for rule in rules):
            return None
        return predictors[0].model.separation.model_copy(update={"method": self.method})

    def load_for_workers(self) -> PredictorGroup:
        """Return the group for a process that lets others predict: on the processor, whatever ``device`` is.

        Raises ``ConfigError`` if a model is not a folder, which others could load, and as :meth:`load`.
        """
        if any(isinstance(model, Predictor) for model in self.models):
            raise ConfigError("models: found a loaded predictor, expected folders, which every worker can load.")
        return replace(replace(self, device="cpu").load(), load_again=self.kept)

    def kept(self) -> PredictorGroup:
        """Return the group, which this process loads once and keeps until another one is asked for."""
        return _kept(self)

    def _predictor(self, model: str | Path | Predictor) -> Predictor:
        if isinstance(model, Predictor):
            return model
        return Predictor.load(
            model, self.folds, self.device, checkpoint=self.checkpoint, mirror=self.mirror, step=self.step,
            fast=self.fast,
        )  # fmt: skip


@lru_cache(maxsize=1)
def _kept(source: GroupSource) -> PredictorGroup:
    return source.load()
