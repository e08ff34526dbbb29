"""The planners: one frozen table of the numbers in which they differ."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from autoseg.core.components import resolve
from autoseg.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PlannerSettings:
    """All numbers of a planner. Budgets are sums of feature map values (see ``planning.memory``)."""

    kind: str
    """Architecture of the network; see :class:`autoseg.core.plan.Topology`."""
    memory_gb: float
    """GPU memory, GB, for which the budgets below were measured."""
    budget_2d: float
    """Feature map values of ``reference_batch_2d`` patches of a 2-D configuration on a GPU of ``memory_gb``."""
    budget_3d: float
    """The same for a 3-D configuration and ``reference_batch_3d`` patches."""
    encoder_blocks: tuple[int, ...]
    """Blocks (in plain networks: convolutions) per encoder stage; further stages have as many as the last one here."""
    decoder_blocks: int
    """Convolutions per decoder stage."""
    covered_by_batch: float
    """Largest share, 0 to 1, of the voxels of the data set in one batch."""
    patch_batch: int | None = None
    """Batch size with which a patch must fit the budget; None is the reference batch."""
    base_features: int = 32
    max_features_2d: int = 512
    max_features_3d: int = 320
    reference_batch_2d: int = 12
    reference_batch_3d: int = 2
    min_batch: int = 2
    max_batch: int | None = None
    min_bottleneck_edge: int = 4
    """No axis is pooled below this many voxels."""
    anisotropy: float = 3.0
    """The coarsest axis is planned separately if spacings (and extents) differ by more than this ratio."""
    lowres_below: float = 0.25
    """A low resolution configuration is planned if a patch covers less than this share of the median case."""

    def budget(self, n_dims: int) -> float:
        """Return the budget, in feature map values, for patches of 2 or 3 axes."""
        return self.budget_2d if n_dims == 2 else self.budget_3d

    def reference_batch(self, n_dims: int) -> int:
        """Return the batch size for which :meth:`budget` is given."""
        return self.reference_batch_2d if n_dims == 2 else self.reference_batch_3d

    def max_features(self, n_dims: int) -> int:
        """Return the largest number of channels of a stage."""
        return self.max_features_2d if n_dims == 2 else self.max_features_3d

    def blocks(self, n_stages: int) -> tuple[int, ...]:
        """Return the encoder blocks of each of ``n_stages`` stages."""
        last = len(self.encoder_blocks) - 1
        return tuple(self.encoder_blocks[min(stage, last)] for stage in range(n_stages))


def _residual(memory_gb: float, budget_2d: float, budget_3d: float) -> PlannerSettings:
    return PlannerSettings(
        kind="residual",
        memory_gb=memory_gb,
        budget_2d=budget_2d,
        budget_3d=budget_3d,
        encoder_blocks=(1, 3, 4, 6),
        decoder_blocks=1,
        covered_by_batch=1.0,
    )


PLANNERS = MappingProxyType(
    {
        "default": PlannerSettings(
            kind="plain",
            memory_gb=8,
            budget_2d=85e6,
            budget_3d=560e6,
            encoder_blocks=(2,),
            decoder_blocks=2,
            covered_by_batch=0.05,
            patch_batch=2,
        ),
        "resenc_m": _residual(8, 135e6, 680e6),
        "resenc_l": _residual(24, 380e6, 2100e6),
        "resenc_xl": _residual(40, 560e6, 3600e6),
        "small": PlannerSettings(
            kind="plain",
            memory_gb=1,
            budget_2d=4e6,
            budget_3d=14e6,
            encoder_blocks=(2,),
            decoder_blocks=2,
            covered_by_batch=0.05,
            base_features=16,
            max_features_2d=128,
            max_features_3d=128,
            reference_batch_2d=8,
            max_batch=8,
        ),
    }
)
"""Planner name -> settings.

Source: nnU-Net 2.8.1 ``ExperimentPlanner`` (default) and ``nnUNetPlannerResEnc{M,L,XL}``. ``small`` is ours: the same
rules with a budget for which one training iteration takes well under a second on two CPU cores."""


def planner_settings(name: str) -> PlannerSettings:
    """Return the settings of a planner: a key of ``PLANNERS``, an entry point, or ``package.module:attribute``.

    Raises ``ConfigError`` that names the planners that exist.
    """
    settings = resolve("planner", name, PLANNERS)
    if not isinstance(settings, PlannerSettings):
        raise ConfigError(
            f"planner {name!r} is a {type(settings).__name__}, expected autoseg.planning.PlannerSettings."
        )
    return settings
