from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nnunet_side import NnunetSide, check_expressible, describe_optimizer, network_arguments, write_raw
from toy import IGNORE, write_toy_dataset

from autoseg.core.errors import AutosegError, ConfigError
from autoseg.core.plan import Topology
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_labels, write_labels
from autoseg.training.config import TrainingConfig
from autoseg.training.optim import OptimizerSettings, adamw


@pytest.mark.parametrize("ignore", [IGNORE, 200])
def test_nnunet_gets_links_and_the_ignore_value_that_it_insists_on(tmp_path, ignore):
    folder = write_toy_dataset(tmp_path / "toy", n_cases=2, shape=(4, 6, 5))
    wanted, geometry = read_labels(folder / "labelsTr" / "toy_000.nii.gz")
    moved = np.where(wanted == IGNORE, ignore, wanted).astype(np.uint8)
    write_labels(folder / "labelsTr" / "toy_000.nii.gz", moved, geometry)
    dataset = Dataset.load(folder)
    dataset = replace(dataset, labels=replace(dataset.labels, ignore=ignore))
    write_raw(dataset, dataset.cases[:1], tmp_path / "raw")

    described = json.loads((tmp_path / "raw" / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "bright": 1, "brighter": 2, "ignore": IGNORE}
    assert described["numTraining"] == 1
    assert [path.name for path in (tmp_path / "raw" / "imagesTr").iterdir()] == ["toy_000_0000.nii.gz"]
    label = tmp_path / "raw" / "labelsTr" / "toy_000.nii.gz"
    assert label.is_symlink() == (ignore == IGNORE)
    assert IGNORE in wanted
    assert np.array_equal(read_labels(label)[0], wanted)


def test_label_sets_are_refused(tmp_path):
    dataset = Dataset.load(write_toy_dataset(tmp_path / "toy", n_cases=1, shape=(4, 6, 5)))
    check_expressible(dataset)
    with pytest.raises(ConfigError, match="found label_sets, which nnU-Net does not have"):
        check_expressible(replace(dataset, labels=replace(dataset.labels, set_values={5: frozenset({1, 2})})))


@pytest.mark.parametrize(("kind", "key"), [("plain", "n_conv_per_stage"), ("residual", "n_blocks_per_stage")])
def test_the_network_is_described_in_nnunets_words(kind, key):
    topology = Topology(
        kind=kind, features=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3)),
        encoder_blocks=(2, 3), decoder_blocks=(1,),
    )  # fmt: skip
    arguments = network_arguments(topology)
    assert arguments[key] == (2, 3)
    assert arguments["n_stages"] == 2
    assert arguments["features_per_stage"] == (4, 8)


def test_the_optimiser_is_handed_over_with_its_rate_at_every_step():
    described = describe_optimizer(TrainingConfig(iterations=100, optimizer="adamw", warmup_iterations=10))
    assert described["class"] == "AdamW"
    assert described["options"]["weight_decay"] == adamw().weight_decay
    assert len(described["rates"]) == 100
    assert np.argmax(described["rates"]) == 10
    assert max(described["rates"]) == adamw().learning_rate
    json.dumps(described)


def grouped() -> OptimizerSettings:
    """An optimiser whose groups of weights differ in more than their decay, which cannot be handed over."""

    def build(groups, *settings):
        first, second = groups
        return adamw().build([first, {**second, "betas": (0.5, 0.5)}], *settings)

    return replace(adamw(), build=build)


def test_an_optimiser_with_groups_of_weights_is_refused(monkeypatch):
    monkeypatch.setattr("autoseg.training.optim.BUILT_IN", {"grouped": grouped})
    with pytest.raises(ConfigError, match="AdamW with 2 groups of weights"):
        describe_optimizer(TrainingConfig(iterations=10, optimizer="grouped"))


@pytest.fixture
def interpreter(tmp_path):
    """A stand-in for nnU-Net's interpreter that says something and fails."""
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\necho out of memory\nexit 3\n")
    path.chmod(0o755)
    return path


def test_a_failure_of_nnunet_shows_the_end_of_its_output(tmp_path, interpreter):
    side = NnunetSide(interpreter, tmp_path, workers=1, threads=1)
    with pytest.raises(AutosegError, match=r"\(exit code 3\).*\n.*out of memory"):
        side.run("train", {}, tmp_path)


def test_an_interpreter_without_nnunet_is_refused(tmp_path, interpreter):
    with pytest.raises(ConfigError, match="found no interpreter with nnunetv2"):
        NnunetSide(interpreter, tmp_path, workers=1, threads=1).version()


def test_our_optimizer_is_handed_over_with_a_file_that_needs_nothing_but_torch(tmp_path):
    described = describe_optimizer(TrainingConfig(iterations=10, optimizer="muon", weight_decay=0.5))
    assert described["class"] == "Muon"
    assert described["options"] == {"lr": 4e-3, "weight_decay": 0.5, "momentum": 0.95}
    alone = tmp_path / "alone.py"
    alone.write_bytes(Path(described["file"]).read_bytes())
    script = "import sys, alone; assert not any(name.startswith('autoseg') for name in sys.modules); alone.Muon"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, env={"PYTHONPATH": str(tmp_path)})
