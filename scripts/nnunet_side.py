"""The inputs with which nnU-Net runs the same training as autoseg: its raw folder, jobs for ``nnunet_driver.py``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from autoseg.core.atomic import write_json
from autoseg.core.errors import AutosegError, ConfigError
from autoseg.core.plan import Configuration, Topology
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.schema import IGNORE
from autoseg.interop.nnunet_plans import NNUNET_PLANNERS
from autoseg.io.images import read_labels, write_labels
from autoseg.io.raw_layout import put_file, put_images
from autoseg.training import muon
from autoseg.training.batches import batch_size
from autoseg.training.config import TrainingConfig
from autoseg.training.optim import build_optimization
from autoseg.training.request import FoldRequest

TESTED_VERSION = "2.8.1"
DATASET_ID = 900
DATASET_NAME = f"Dataset{DATASET_ID}_compare"
DRIVER = Path(__file__).with_name("nnunet_driver.py")
LOG_LINES = 15
"""Last lines of nnU-Net's output that an error message shows."""


@dataclass(frozen=True)
class NnunetSide:
    """nnU-Net's interpreter and its folders below ``work``."""

    python: Path
    work: Path
    workers: int
    threads: int

    def version(self) -> str:
        """Return the version of nnunetv2 that the interpreter has; raise ``ConfigError`` if it has none."""
        code = "import importlib.metadata as m; print(m.version('nnunetv2'))"
        try:
            asked = subprocess.run([self.python, "-c", code], capture_output=True, encoding="utf-8", check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ConfigError(
                f"--nnunet-python {self.python}: found no interpreter with nnunetv2, expected one. Make one: "
                f"python -m venv ENV && ENV/bin/pip install nnunetv2=={TESTED_VERSION}, then give ENV/bin/python."
            ) from error
        return asked.stdout.strip()

    def run(self, stage: str, job: Mapping[str, Any], folder: Path) -> None:
        """Run a stage of the driver on ``job``, its output in ``folder/log.txt``.

        Raises ``AutosegError`` with the end of the output if it fails.
        """
        job_path, log_path = folder / f"{stage}.json", folder / "log.txt"
        write_json(job_path, job)
        environment = os.environ | {
            "nnUNet_raw": str(self.work / "raw"),
            "nnUNet_preprocessed": str(self.work / "preprocessed"),
            "nnUNet_results": str(folder / "results"),
            "nnUNet_compile": "f",
            "nnUNet_n_proc_DA": str(max(1, self.workers)),
            "nnUNet_def_n_proc": str(max(1, self.workers, self.threads)),
        }
        with log_path.open("a", encoding="utf-8") as log:
            command = [str(self.python), "-u", str(DRIVER), stage, str(job_path)]
            code = run_in_own_group(command, log, environment)
        if code != 0:
            lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
            raise AutosegError("\n".join([f"nnU-Net failed to {stage} (exit code {code}), {log_path}:", *lines]))

    def prepare(self, request: FoldRequest) -> None:
        """Let nnU-Net measure, plan (then with our network) and preprocess the cases of a fold; once per ``work``."""
        finished = self.work / "prepared.json"
        if finished.is_file():
            return
        cases = [request.dataset.case(name) for name in sorted({*request.train_cases, *request.val_cases})]
        write_raw(request.dataset, cases, self.work / "raw" / DATASET_NAME)
        planner = NNUNET_PLANNERS.get(request.plan.planner, NNUNET_PLANNERS["default"])
        job = {
            "dataset": DATASET_NAME,
            "planner": planner.class_name,
            "configuration": request.configuration.name,
            "expected": {
                "spacing": request.configuration.spacing,
                "transpose_forward": request.plan.transpose_forward,
            },
            "plan": plan_changes(request.configuration, batch_size(request)),
            "split": {"train": request.train_cases, "val": request.val_cases},
            "workers": max(1, self.workers),
            "finished": str(finished),
        }
        self.run("prepare", job, self.work)

    def train_and_predict(
        self,
        request: FoldRequest,
        cases: Sequence[str],
        folder: Path,
        *,
        takes_our_optimizer: bool,
        seconds: float | None,
    ) -> dict[str, Any]:
        """Train as ``request`` says and predict ``cases`` into ``folder/predictions``; return what the driver measured.

        ``seconds`` ends the run after this time instead of after ``request.config.iterations``.
        """
        raw = self.work / "raw" / DATASET_NAME
        prepared = json.loads((self.work / "prepared.json").read_text(encoding="utf-8"))
        config = request.config
        job = {
            "dataset": DATASET_NAME,
            "plans_name": prepared["plans_name"],
            "configuration": request.configuration.name,
            "device": request.device,
            "threads": self.threads,
            "seed": config.seed,
            "iterations": config.iterations,
            "iterations_per_epoch": config.iterations_per_epoch,
            "validation_iterations": config.validation_iterations,
            "seconds": seconds,
            "optimizer": describe_optimizer(config) if takes_our_optimizer else None,
            "inputs": [sorted(map(str, (raw / "imagesTr").glob(f"{case}_[0-9][0-9][0-9][0-9].*"))) for case in cases],
            "predictions": str(folder / "predictions"),
            "trained": str(folder / "trained.json"),
            "finished": str(folder / "finished.json"),
        }
        self.run("train", job, folder)
        measured: dict[str, Any] = json.loads((folder / "finished.json").read_text(encoding="utf-8"))
        return measured


def run_in_own_group(command: Sequence[str], log: IO[str], environment: Mapping[str, str]) -> int:
    """Run a command and return its exit code; whatever ends this call, no process of the command outlives it."""
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    )  # fmt: skip
    try:
        return process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # nnU-Net's background workers too


def check_expressible(dataset: Dataset) -> None:
    """Raise ``ConfigError`` if nnU-Net has no way to say what the label files of a data set mean."""
    said = {"label_sets": bool(dataset.labels.set_values), "unlabelled": "unlabelled" in dataset.json}
    own = [key for key, is_there in said.items() if is_there]
    if own:
        raise ConfigError(
            f"{dataset.name}: found {' and '.join(own)}, which nnU-Net does not have; expected classes, regions and "
            "ignore. "
            "Compare on a copy of the data set in which these values are ignore."
        )


def write_raw(dataset: Dataset, cases: Sequence[CaseFiles], folder: Path) -> None:
    """Write ``cases`` as a raw data set of nnU-Net: links, or new label files where its ignore value must change."""
    put_images(cases, dataset.file_ending, folder / "imagesTr")
    labels_folder = folder / "labelsTr"
    labels_folder.mkdir(exist_ok=True)
    wanted = max(dataset.labels.class_values) + 1
    for case in cases:
        target = labels_folder / f"{case.name}{dataset.file_ending}"
        if case.label is not None and dataset.labels.ignore in (None, wanted):
            put_file(case.label, target)
        elif case.label is not None:
            target.unlink(missing_ok=True)
            labels, geometry = read_labels(case.label)
            moved = np.where(labels == dataset.labels.ignore, wanted, labels).astype(np.uint16)
            write_labels(target, moved, geometry)
    write_json(folder / "dataset.json", nnunet_json(dataset, len(cases), wanted))


def nnunet_json(dataset: Dataset, n_cases: int, ignore: int) -> dict[str, Any]:
    """Return a dataset.json that nnU-Net accepts: its keys only, and ``ignore`` as the value of the ignore label."""
    labels = {name: ignore if name == IGNORE else value for name, value in dataset.json["labels"].items()}
    optional = ("regions_class_order", "overwrite_image_reader_writer")
    return {
        "channel_names": {str(number): name for number, name in enumerate(dataset.channels)},
        "labels": labels,
        "numTraining": n_cases,
        "file_ending": dataset.file_ending,
        **{key: dataset.json[key] for key in optional if key in dataset.json},
    }


def plan_changes(configuration: Configuration, n_patches: int) -> dict[str, Any]:
    """Return what of a configuration in nnU-Net's plans makes its network and batches those of ours."""
    return {
        "patch_size": configuration.patch_size,
        "batch_size": n_patches,
        "batch_dice": configuration.batch_dice,
        "arch_kwargs": network_arguments(configuration.topology),
    }


def network_arguments(topology: Topology) -> dict[str, Any]:
    """Return the size of a network in the words of ``dynamic_network_architectures``."""
    return {
        "n_stages": topology.n_stages,
        "features_per_stage": topology.features,
        "kernel_sizes": topology.kernels,
        "strides": topology.strides,
        "n_conv_per_stage" if topology.kind == "plain" else "n_blocks_per_stage": topology.encoder_blocks,
        "n_conv_per_stage_decoder": topology.decoder_blocks,
    }


def describe_optimizer(config: TrainingConfig) -> dict[str, Any]:
    """Return the optimiser of a run as its class, the file that defines it, its options and its rate at every step.

    The file is None for a class of ``torch.optim``; one of ours stands in a module that needs nothing but torch, since
    it is imported by nnU-Net's interpreter. As in our runs, weights of one axis do not decay. Raises ``ConfigError`` if
    the optimiser is of neither kind or treats some weights differently otherwise.
    """
    built = build_optimization(torch.nn.Conv2d(1, 1, 3), config.optimizer, config.iterations)
    optimizer = built.optimizer
    name = type(optimizer).__name__
    is_torchs = getattr(torch.optim, name, None) is type(optimizer)
    groups = [
        {k: v for k, v in group.items() if k not in ("params", "weight_decay")} for group in optimizer.param_groups
    ]
    if not (is_torchs or isinstance(optimizer, muon.Muon)) or any(group != groups[0] for group in groups):
        raise ConfigError(
            f"--set optimizer={config.optimizer.name}: {name} with {len(groups)} groups of weights cannot be handed "
            "over to nnU-Net, expected Muon or a class of torch.optim whose groups differ in weight decay only. "
            "Leave out nnunet-ours."
        )
    return {
        "class": name,
        "file": None if is_torchs else str(Path(muon.__file__).resolve()),
        "options": dict(optimizer.defaults),
        "rates": [built.learning_rate_at(iteration) for iteration in range(config.iterations)],
    }
