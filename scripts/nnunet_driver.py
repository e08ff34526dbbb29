"""Run nnU-Net on a job of ``compare_nnunet.py``. It runs in nnU-Net's interpreter and knows nothing of autoseg.

python nnunet_driver.py prepare|train JOB.json, with nnUNet_raw, nnUNet_preprocessed and nnUNet_results set.
"""

# mypy: disable-error-code="import-not-found, import-untyped, no-any-unimported, misc, no-untyped-call, attr-defined"
from __future__ import annotations

import importlib.machinery
import inspect
import json
import math
import os
import random
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainer_module  # noqa: N813
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

POLYNOMIAL = 0.9
"""Exponent of nnU-Net's learning rate over the run (``training/lr_scheduler/polylr.py``)."""


def main() -> None:
    """Run the stage that the command line names on its job."""
    threading.Thread(target=leave_with, args=(os.getppid(),), daemon=True).start()
    stage, job_path = sys.argv[1:]
    job = read_json(Path(job_path))
    {"prepare": prepare, "train": train}[stage](job)


def leave_with(parent: int) -> None:
    """End this process and its workers, which have a process group of their own, soon after the parent was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


def prepare(job: dict[str, Any]) -> None:
    """Fingerprint, plan and preprocess as nnU-Net does, but with the network, patch and batch of the job."""
    started = time.monotonic()
    dataset_id = int(job["dataset"][len("Dataset") :].split("_")[0])
    folder = Path(nnUNet_preprocessed) / job["dataset"]
    extract_fingerprints([dataset_id], num_processes=job["workers"], show_progress_bar=False)
    plans_name = plan_experiments([dataset_id], job["planner"])
    plans_path = folder / f"{plans_name}.json"
    plans = change_plans(read_json(plans_path), job)
    write_json(plans_path, plans)
    write_json(folder / "splits_final.json", [job["split"]])
    preprocessor = PlansManager(plans).get_configuration(job["configuration"]).preprocessor_class(verbose=False)
    preprocessor.show_progress_bar = False
    preprocessor.run(dataset_id, job["configuration"], plans_name, num_processes=job["workers"])
    versions = {name: version(name) for name in ("nnunetv2", "torch", "batchgeneratorsv2")}
    seconds = time.monotonic() - started
    write_json(Path(job["finished"]), {"plans_name": plans_name, "versions": versions, "seconds": seconds})


def change_plans(plans: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """Put the network, patch and batch of the job into plans; leave with a message if the data would differ."""
    name = job["configuration"]
    configuration = plans["configurations"].get(name, {})
    if "architecture" not in configuration:
        sys.exit(
            f"plans: found no configuration {name!r} with a network, expected one of {[*plans['configurations']]}."
        )
    found = {"spacing": configuration["spacing"], "transpose_forward": plans["transpose_forward"]}
    for key, expected in job["expected"].items():
        if not np.allclose(found[key], expected):
            sys.exit(f"plans: found {key} {found[key]}, expected {expected}: the two would see different images.")
    changes = dict(job["plan"])
    configuration["architecture"]["arch_kwargs"].update(changes.pop("arch_kwargs"))
    configuration.update(changes)
    return plans


def train(job: dict[str, Any]) -> None:
    """Train unless that is done, then predict the cases of the job; write what was measured."""
    torch.set_num_threads(job["threads"])
    seed_everything(job["seed"])
    folder = Path(nnUNet_preprocessed) / job["dataset"]
    plans = read_json(folder / f"{job['plans_name']}.json") | {"continue_training": False}
    device = torch.device(job["device"])
    dataset_json = read_json(folder / "dataset.json")
    trainer = YardstickTrainer(plans, job["configuration"], fold=0, dataset_json=dataset_json, device=device)
    trainer.job = job
    trained_path = Path(job["trained"])
    if trained_path.is_file():
        trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
        trained = read_json(trained_path)
    else:
        started, computed = time.monotonic(), time.process_time()
        trainer.run_training()
        trained = {
            "iterations": trainer.iteration,
            "training_seconds": time.monotonic() - started,
            "processor_seconds": time.process_time() - computed,
            "n_parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
            "precision": "float16" if device.type == "cuda" else "float32",
        }
        write_json(trained_path, trained)
    started = time.monotonic()
    predict(trainer, job)
    write_json(Path(job["finished"]), trained | {"prediction_seconds": time.monotonic() - started})


def predict(trainer: YardstickTrainer, job: dict[str, Any]) -> None:
    """Predict the raw images of the cases as ``nnUNetv2_predict`` does: steps of half a patch, mirrored."""
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(device=trainer.device, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    output = Path(job["predictions"])
    output.mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential(job["inputs"], str(output))


class YardstickTrainer(trainer_module.nnUNetTrainer):
    """nnU-Net's trainer, unchanged but for the length of the run, seeds, and optionally another optimiser.

    The rate is set before every step, by the share of the run that is over (steps, or seconds where the job limits
    them); nnU-Net sets it once per epoch, of which a short run has few.
    """

    job: dict[str, Any]
    """Set after construction: the signature of the constructor is fixed by nnU-Net."""
    iteration = 0

    def initialize(self) -> None:
        """Take the lengths from the job, and start the clock before anything is built."""
        self.started = time.monotonic()
        self.num_iterations_per_epoch = self.job["iterations_per_epoch"]
        self.num_val_iterations_per_epoch = self.job["validation_iterations"]
        self.num_epochs = math.ceil(self.job["iterations"] / self.num_iterations_per_epoch)
        super().initialize()

    def share(self) -> float:
        """Return the share of the run that is over, 0 to 1."""
        if self.job["seconds"] is not None:
            return float(min(1.0, (time.monotonic() - self.started) / self.job["seconds"]))
        return float(self.iteration / self.job["iterations"])

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, RunSchedule]:
        """Return nnU-Net's optimiser and polynomial schedule, or those of the job."""
        given = self.job["optimizer"]
        if given is None:
            optimizer, _ = super().configure_optimizers()
            top = self.initial_lr
            return optimizer, RunSchedule(optimizer, lambda: top * (1 - self.share()) ** POLYNOMIAL)
        rates = given["rates"]
        build = optimizer_class(given["class"], given["file"])
        known = inspect.signature(build).parameters
        weights = list(self.network.parameters())
        groups = [
            {"params": [weight for weight in weights if weight.ndim > 1]},
            {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = build(groups, **{k: v for k, v in given["options"].items() if k in known})
        return optimizer, RunSchedule(optimizer, lambda: rates[min(len(rates) - 1, int(self.share() * len(rates)))])

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Return nnU-Net's loaders, their workers seeded (in order only with one worker)."""
        SeededAugmenter.first_seed = 1000 * self.job["seed"]
        trainer_module.NonDetMultiThreadedAugmenter = SeededAugmenter
        return tuple(super().get_dataloaders())

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one step at the rate of its place in the run."""
        self.lr_scheduler.step()
        result: dict[str, Any] = super().train_step(batch)
        self.iteration += 1
        return result

    def run_training(self) -> None:
        """Train epochs, the last one cut short, until the iterations (or seconds) of the job are over."""
        self.on_train_start()
        while self.share() < 1:
            self.on_epoch_start()
            self.on_train_epoch_start()
            outputs: list[dict[str, Any]] = []
            while not outputs or (len(outputs) < self.num_iterations_per_epoch and self.share() < 1):
                outputs.append(self.train_step(next(self.dataloader_train)))
            self.on_train_epoch_end(outputs)
            with torch.no_grad():
                self.on_validation_epoch_start()
                steps = range(self.num_val_iterations_per_epoch)
                self.on_validation_epoch_end([self.validation_step(next(self.dataloader_val)) for _ in steps])
            self.on_epoch_end()
        self.on_train_end()


def optimizer_class(name: str, file: str | None) -> Callable[..., torch.optim.Optimizer]:
    """Return a class of ``torch.optim``, or of a Python file that stands on its own."""
    if file is None:
        found: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, name)
        return found
    loader = importlib.machinery.SourceFileLoader("optimizer_of_job", file)
    module = types.ModuleType(loader.name)
    loader.exec_module(module)
    found = getattr(module, name)
    return found


class RunSchedule:
    """What nnU-Net calls a scheduler: it sets the rate that the run's progress asks for."""

    def __init__(self, optimizer: torch.optim.Optimizer, rate: Callable[[], float]) -> None:
        self.optimizer = optimizer
        self.rate = rate

    def step(self, epoch: int | None = None) -> None:
        """Set the rate; the number of the epoch that nnU-Net passes does not matter."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()


class SeededAugmenter(NonDetMultiThreadedAugmenter):
    """nnU-Net's background workers, each with a seed of its own."""

    first_seed = 0

    def __init__(self, *args: Any, num_processes: int, seeds: None = None, **options: Any) -> None:
        first = SeededAugmenter.first_seed
        SeededAugmenter.first_seed += num_processes
        super().__init__(*args, num_processes=num_processes, seeds=[first + i for i in range(num_processes)], **options)


def seed_everything(seed: int) -> None:
    """Seed what draws the weights and the patches."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file wholly or not at all."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(value, indent=2), encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    main()
