"""Our side of the training step, in the arithmetic that the processor computes fastest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg.cases.code_table import CodeTable
from autoseg.core.plan import Topology
from autoseg.dataset.labels import Head, Labels
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.device import autocast_dtype
from autoseg.nn.losses.label_sets import LabelSetLoss
from autoseg.sampling.batch import Batch, BatchTable
from autoseg.tasks.semantic import Semantic
from autoseg.training.config import TrainingConfig
from autoseg.training.evidence.loss import EvidenceLoss
from autoseg.training.objective import Objective
from autoseg.training.optim import build_optimization
from autoseg.training.trainer import Parts, training_step
from benchmark_rows.step import topology


def steps(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Train ``steps`` steps on one batch; each call goes on where the last ended and returns its losses."""
    n_classes, device = settings["classes"], torch.device("cpu")
    torch.manual_seed(0)
    torch.set_num_threads(settings.get("threads", 1))
    shape = Topology.model_validate({"kind": "plain", **topology(settings)})
    network = build_network(shape, 1, n_classes)
    config = TrainingConfig(optimizer="sgd", iterations=100_000)
    sets = np.concatenate([np.eye(n_classes, dtype=bool), np.ones((1, n_classes), dtype=bool)])
    images = torch.from_numpy(np.load(folder / "images.npy"))
    codes = torch.from_numpy(np.load(folder / "classes.npy"))
    table = CodeTable.of_sets(sets, sets, n_classes)
    batch = Batch(images, codes, BatchTable.stack([table] * len(images)))
    names = tuple(f"class {index}" for index in range(n_classes))
    heads = tuple(Head(name, (index,), (index,), is_background=index == 0) for index, name in enumerate(names))
    labels = Labels(tuple(range(n_classes)), names, heads)
    parts = Parts(
        network=network,
        loss=EvidenceLoss(LabelSetLoss(None, False), network.output_strides, n_classes),
        optimization=build_optimization(network, config.optimizer, config.iterations),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device=device,
        autocast_dtype=autocast_dtype(device),
        training_batches=lambda _: iter(()),
        validation_batches=lambda: iter(()),
        objective=Objective(Semantic(labels), device),
    )
    parts.optimization.set_learning_rate(0)

    def run() -> list[float]:
        return [
            float(training_step(parts, batch, index, config.optimizer.gradient_clip).loss)
            for index in range(settings["steps"])
        ]

    return run
