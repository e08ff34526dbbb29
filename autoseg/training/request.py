"""A fold that is to be trained: the data, the plan, the settings, and where the results go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.cases.cache import CaseCache
from autoseg.cases.entry import CacheEntry
from autoseg.core.plan import Configuration, Plan
from autoseg.core.ranks import ONE_PROCESS, Ranks
from autoseg.dataset.dataset import Dataset
from autoseg.training.config import TrainingConfig


@dataclass(frozen=True, slots=True)
class FoldRequest:
    """One training: its network, data, settings and folder."""

    dataset: Dataset
    plan: Plan
    configuration: Configuration
    cache: CaseCache
    """The preprocessed cases of this configuration."""
    train_cases: tuple[str, ...]
    val_cases: tuple[str, ...]
    fold: str
    """``"0"`` .. or ``"all"``, or a further seed of it, ``"all_seed1"`` ..."""
    folder: Path
    """``.../<name>__<configuration>/fold_<k>``."""
    config: TrainingConfig
    device: str = "auto"
    workers: int = 1
    name: str = "default"
    """Of the run."""
    pretrained: Path | None = None
    """Checkpoint whose weights are the start; see :func:`autoseg.training.pretrained.load_pretrained`."""
    ranks: Ranks = ONE_PROCESS
    """The processes that train this fold together."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Dotted key of a setting -> level that set it; settings that nobody set are left out."""
    batch_devices: int = 1
    """Number of devices that each get the whole batch size, as the run was begun: 1 unless ``batch_per_device``."""
    data_hash: str = ""
    """Hash of the source files and dataset.json; "" where it is not known."""

    @property
    def train_entries(self) -> tuple[CacheEntry, ...]:
        """Entries of the training cases that are in the cache."""
        return tuple(self.cache.entries[name] for name in self.train_cases if name in self.cache.entries)
