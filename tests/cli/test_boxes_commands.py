"""Boxes of a real volume of electron microscopy through the commands, as files of the same boxes would go."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from command_line import run_command

from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_header, read_image, read_labels, write_labels
from autoseg.io.zarr_writer import create_zarr

SHAPE = (16, 192, 192)
BOXES = {"a": [[0, 8], [0, 64], [20, 84]], "b": [[4, 12], [70, 140], [0, 64]], "c": [[2, 16], [100, 164], [120, 192]]}
SMALL = ("--set", "network.levels=2", "network.features=8,16")
QUICK = (
    "-j", "0", "--device", "cpu", "--iterations", 2, "--set", "iterations_per_epoch=2", "validation_iterations=1",
    "precision=float32", "batch_size=1",
)  # fmt: skip


def succeed(name: str, *arguments: object, root: Path | None = None) -> str:
    result = run_command(name, *arguments, root=root)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def folder(real_data: Path, tmp_path_factory) -> Path:
    """Sections of ISBI 2012 as a Zarr, with three boxes: labels of all of it, of one box, and with a mask."""
    folder = tmp_path_factory.mktemp("boxes") / "raw" / "Dataset022_EM"
    folder.mkdir(parents=True)
    source = real_data / "Dataset021_ISBI2012"
    names = sorted(path.name for path in (source / "labelsTr").iterdir())[: SHAPE[0]]
    images = [read_image([source / "imagesTr" / name.replace(".png", "_0000.png")])[0][0, 0] for name in names]
    volume = np.stack(images)[:, : SHAPE[1], : SHAPE[2]].astype(np.uint8)
    truth = np.stack([read_labels(source / "labelsTr" / name)[0][0] for name in names])[:, : SHAPE[1], : SHAPE[2]]
    geometry = Geometry(spacing=(5e-5, 4e-6, 4e-6))
    zarr = create_zarr(folder / "em.zarr", (1, *SHAPE), "uint8", geometry, chunk=(8, 64, 64), shard=(16, 64, 64))
    for box in zarr.pending():
        zarr.write(box, volume[None][(slice(None), *box.slices)])
    zarr.finish()
    with h5py.File(folder / "labels.h5", "w") as file:
        file["all"] = truth
        spans = BOXES["b"]
        file["b"] = truth[tuple(slice(*span) for span in spans)]
        file["mask"] = (np.arange(SHAPE[2]) < 180) * np.ones(SHAPE, np.uint8)
    boxes = {name: {"image": "em.zarr", "box": box, "label": "labels.h5:all"} for name, box in BOXES.items()}
    boxes["b"]["label"], boxes["c"]["valid_mask"] = "labels.h5:b", "labels.h5:mask"
    content = {"channel_names": {"0": "EM"}, "labels": {"background": 0, "membrane": 1}, "boxes": boxes}
    (folder / "dataset.json").write_text(json.dumps(content))
    for name, array in (("imagesTs/new_0000", volume), ("labelsTs/new", truth)):
        (folder / name).parent.mkdir()
        write_labels(folder / f"{name}.nii.gz", array[:8, :96, :96], geometry)
    return folder


@pytest.mark.slow
def test_boxes_go_through_every_command(folder: Path):
    root = folder.parent.parent
    succeed("plan_and_preprocess", 22, "-c", "3d_fullres", "--planner", "small", *SMALL, "-j", 1, root=root)
    succeed("train", 22, 0, "-c", "3d_fullres", *QUICK, root=root)
    model = root / "results" / folder.name / "default__3d_fullres"
    summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    dataset = Dataset.load(folder)
    for case in summary["metric_per_case"]:
        files = dataset.case(Path(case["prediction_file"]).name.removesuffix(".nii.gz"))
        shape, geometry = read_header(Path(case["prediction_file"]))
        expected, of_box = read_header(files.images[0])
        assert shape == expected and not geometry.differs_from(of_box)
        scores = case["metrics"]["1"]
        truth = read_labels(files.label)[0]
        known = np.ones(truth.shape, bool) if files.valid_mask is None else read_labels(files.valid_mask)[0] > 0
        assert scores["n_ref"] == int((truth[known] == 1).sum())
    assert summary["metric_per_case"]
    out = root / "out"
    succeed("predict", "-i", folder / "imagesTs", "-o", out, "-m", model, "-j", 0, "--device", "cpu")
    succeed("evaluate_folder", folder / "labelsTs", out, "-j", 1)
    picture = root / "batches.png"
    succeed("preview_batches", 22, "-c", "3d_fullres", "-o", picture, root=root)
    succeed("report", model / "fold_0", "-o", root / "report.html")
    completed, simulated = root / "completed", root / "simulated"
    succeed("complete", 22, "-o", completed, "--seen", "--device", "cpu", "--no-tta", root=root)
    succeed("simulate_annotation", completed, "-o", simulated, "--slices", 0.5, "-j", 1)
    for name, source in (("completed", folder), ("simulated", completed)):
        made = Dataset.load(root / name)
        assert [case.volume.box for case in made.cases] == [case.volume.box for case in dataset.cases]
        assert {case.volume.images for case in made.cases} == {(str(folder / "em.zarr"),)}
        for case in made.cases:
            drawn, before = read_labels(case.label)[0], read_labels(Dataset.load(source).case(case.name).label)[0]
            is_annotated = drawn != made.labels.ignore
            if case.name != "c" or source == completed:
                assert np.array_equal(drawn[is_annotated], before[is_annotated])
        checked = succeed("plan_and_preprocess", root / name, "--check-only", "--json", "-j", 1)
        assert json.loads(checked)["faults"] == []
