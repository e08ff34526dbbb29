"""Commands with ``--cluster`` write what they write without it."""

from __future__ import annotations

import json
import shutil
import socket

import numpy as np
import pytest
from command_line import run_command
from dask_processes import cluster_of
from toy import toy_case

from autoseg.core import cluster
from autoseg.core.geometry import Geometry
from autoseg.io.images import write_labels

OF_ONE_RUN = {"prediction.json", "summary.json"}
"""Files that hold a command line."""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with cluster_of(
        tmp_path_factory.mktemp("cluster"), ("--no-nanny",), ("--no-nanny", "--resources", "GPU=1")
    ) as path:
        yield json.loads(path.read_text())["address"]


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in OF_ONE_RUN)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if not path.name.startswith(".")}


@pytest.mark.slow
def test_plans_and_caches_are_those_of_one_process(address, toy_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the workspace is a relative path, and workers work in other folders
    given = ["plan_and_preprocess", toy_folder, "--planner", "small", "-c", "3d_fullres"]
    for root, where in (("alone", ("-j", "1")), ("shared", ("--cluster", address))):
        done = run_command(*given, *where, "--root", root)
        assert done.returncode == 0, done.stderr
    alone, shared = contents(tmp_path / "alone"), contents(tmp_path / "shared")
    assert len(alone) > 15
    assert alone == shared
    checked = run_command("plan_and_preprocess", toy_folder, "--check-only", "--json", "--cluster", address)
    assert json.loads(checked.stdout) == json.loads(
        run_command("plan_and_preprocess", toy_folder, "--check-only", "--json", "-j", "1").stdout
    )


def test_scores_are_those_of_one_process(address, toy_folder, tmp_path):
    predictions = tmp_path / "predictions"
    shutil.copytree(toy_folder / "labelsTr_dense", predictions)
    given = ["evaluate_folder", toy_folder / "labelsTr", predictions, "--surface", "--json"]
    alone, shared = (run_command(*given, *where) for where in (("-j", "1"), ("--cluster", address)))
    assert shared.returncode == alone.returncode == 0, shared.stderr
    here, there = json.loads(alone.stdout), json.loads(shared.stdout)
    assert here.pop("command") != there.pop("command")
    assert here == there


@pytest.mark.slow
def test_predictions_and_their_further_outputs_are_those_of_one_process(address, model_folder, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for index in range(4):
        image, _ = toy_case((9, 16, 12 + index), index)
        write_labels(images / f"case{index}_0000.nii.gz", image, Geometry(spacing=(2.0, 1.0, 1.0), ndim=3))
    broken = images / "case1_0000.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-40])
    given = ["predict", "-m", model_folder, "-i", images, "--save-uncertainty", "--save-probabilities", "--instances"]
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    here = run_command(*given, "-o", alone, "-j", "0", "--device", "cpu", "--json")
    there = run_command(*given, "-o", shared, "--cluster", address, "--device", "cpu", "--json")
    assert here.returncode == there.returncode == 1
    failed = json.loads(there.stdout)["failed"]
    assert failed.keys() == {"case1"}
    assert failed == json.loads(here.stdout)["failed"]
    assert "quality.csv" in contents(alone)
    assert contents(alone) == contents(shared)
    run = json.loads((shared / "prediction.json").read_text())["runs"][0]
    assert run["environment"]["device"] == "workers of a cluster"


@pytest.mark.slow
def test_a_volume_is_that_of_one_process(address, model_folder, tmp_path):
    volume = tmp_path / "volume.npy"
    np.save(volume, np.random.default_rng(0).normal(size=(200, 20, 18)).astype(np.float32))
    volume.with_suffix(".json").write_text(json.dumps({"spacing": [2.0, 1.0, 1.0]}))
    given = ["predict", "-m", model_folder, "-i", volume, "--device", "cpu", "--json", "--save-probabilities"]
    given += ["--memory-gb", "2", "--write-as", ".nii.gz"]
    outputs = [tmp_path / "alone", tmp_path / "shared"]
    for output, where in zip(outputs, (("-j", "0"), ("--cluster", address)), strict=True):
        done = run_command(*given, "-o", output, *where)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["done"] == ["volume"]
    alone, shared = map(contents, outputs)
    assert "volume.nii.gz" in alone
    assert alone == shared
    runs = json.loads((outputs[1] / "prediction.json").read_text())["runs"]
    assert [(run["environment"]["device"], run["part"]) for run in runs] == [("workers of a cluster", "")]
    again = run_command(*given, "-o", outputs[1], "--cluster", address)
    assert json.loads(again.stdout)["skipped"] == ["volume"]
    one = run_command(*given, "-o", tmp_path / "one", "--cluster", address, "--part", "1/2")
    assert one.returncode == 2
    assert "--part 1/2: found with --cluster" in one.stderr


def test_mistakes_are_the_users_and_leave_nothing(address, model_folder, toy_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    given = ["predict", "-m", model_folder, "-i", toy_folder / "imagesTr", "-o", tmp_path / "new" / "out"]
    both = run_command(*given, "--cluster", "local:2", "-j", "2")
    assert both.returncode == 2
    assert both.stderr == (
        "error: -j: found with --cluster, which has workers of its own, expected one of them. Leave out -j.\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    nobody = run_command(*given, "--cluster", f"tcp://127.0.0.1:{port}")
    assert nobody.returncode == 2
    assert "Traceback" not in nobody.stderr
    assert nobody.stderr.startswith(f"error: --cluster tcp://127.0.0.1:{port}: found no scheduler")
    absent = ["predict", "-q", "-m", tmp_path / "absent", *given[3:]]
    assert run_command(*absent, "--cluster", address).stderr == run_command(*absent, "-j", "1").stderr
    assert not (tmp_path / "new").exists()
