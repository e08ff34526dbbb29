"""Pages of runs, predictions and fused masks: whole from whatever is there, and clear on what is not."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from html_reader import sound
from report_examples import (
    SHAPES,
    add_quality,
    add_uncertainty,
    object_predictions,
    predictions,
    records,
    write_fold,
    write_predictions,
)
from toy import write_toy_dataset

from autoseg.core.errors import ConfigError, EvaluationError, ModelError
from autoseg.core.geometry import Geometry
from autoseg.core.prediction_record import record_prediction
from autoseg.evaluation import evaluate_folder
from autoseg.io.images import read_labels, write_labels
from autoseg.report.history import write_history
from autoseg.report.prediction_files import Places
from autoseg.report.write_report import write_report

DIMENSIONS = pytest.mark.parametrize("shape", ["2d", "3d"])


def page_of(folder, **options):
    """Return the page of a folder as read, and its remarks."""
    made = write_report(folder, **options)
    return sound(made.path.read_text(encoding="utf-8")), made.remarks


def panels_of(reader):
    return [
        attributes["alt"].partition(" of ")[0] for tag, attributes in reader.tags if tag == "img" and attributes["alt"]
    ]


@DIMENSIONS
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_predictions_are_shown_with_truth_errors_and_uncertainty(tmp_path, shape, sparse):
    folder = predictions(tmp_path, shape=shape, sparse=sparse)
    add_uncertainty(folder)
    reader, remarks = page_of(folder)
    assert not remarks
    assert {*panels_of(reader)} == {"image", "truth", "prediction", "errors", "uncertainty"}
    whole = "".join(text for _, text in reader.texts)
    assert ("unannotated" in whole) == sparse and ("Dice (annotated voxels)" in whole) == sparse
    assert "networks that differ in folds" in whole
    titles = reader.text_of("h3")
    assert [title.partition(":")[0] for title in titles if title.startswith("toy")] == ["toy_002", "toy_001", "toy_000"]
    assert any("toy_000: Dice 1.000" in title and "3 of 3" in title for title in titles)


@DIMENSIONS
@pytest.mark.parametrize("per_class", [None, 1000], ids=["one class", "several classes"])
def test_objects_are_shown_and_ranked_by_average_precision_beside_dice(tmp_path, shape, per_class):
    folder = object_predictions(tmp_path, is_flat=shape == "2d", per_class=per_class)
    reader, remarks = page_of(folder)
    assert not remarks and {*panels_of(reader)} == {"image", "truth", "prediction", "errors"}
    columns = reader.text_of("button")
    names = ("cell",) if per_class is None else ("cell", "dark")
    assert [f"{score} {name}" for score in ("AP50", "AP", "PQ", "Dice") for name in names] == [
        column for column in columns if column.split()[0] in ("AP50", "AP", "PQ", "Dice")
    ]
    shown = [title for title in reader.text_of("h3") if title.startswith("c")]
    assert shown[0].startswith("c1: AP50 0.") and shown[1].startswith("c0: AP50 1.000")
    whole = "".join(text for _, text in reader.texts)
    assert "object without a match" in whole and "reference objects" in whole and "unannotated" in whole


def test_a_prediction_with_numbers_of_no_object_is_named(tmp_path):
    folder = object_predictions(tmp_path, is_flat=True, per_class=1000)
    values, geometry = read_labels(folder / "c0.png")
    write_labels(folder / "c0.png", np.where(values > 0, 3001, values).astype(np.uint16), geometry)
    reader, remarks = page_of(folder)
    assert "numbers of no object" in remarks[0] and "c0" in remarks[0] and len(panels_of(reader)) == 4


def test_of_many_cases_the_worst_the_median_and_the_best_are_shown(tmp_path):
    folder = predictions(tmp_path, n_cases=7)
    reader, _ = page_of(folder, n_each=1)
    shown = [(title.partition(":")[0], title.rpartition(" (")[2]) for title in reader.text_of("h3") if "toy" in title]
    assert shown == [("toy_006", "worst)"), ("toy_003", "median)"), ("toy_000", "best)")]
    assert len([text for text in reader.text_of("td") if text.startswith("toy")]) == 4, "the others are in the table"
    reader, _ = page_of(folder, n_each=0)
    assert not panels_of(reader)


def test_a_page_without_anything_but_predictions(tmp_path):
    folder = predictions(tmp_path)
    (folder / "summary.json").unlink()
    reader, remarks = page_of(folder)
    assert {*panels_of(reader)} == {"prediction"} and "Scores" not in reader.text_of("h2")
    assert "give their folder with -i" in remarks[0]
    (folder / "dataset.json").unlink()
    with pytest.raises(ConfigError, match=r"neither dataset.json nor summary.json.*with -d"):
        write_report(folder)
    dataset = tmp_path / "Dataset007_Toy" / "dataset.json"
    assert "prediction" in panels_of(page_of(folder, places=Places(dataset_json=dataset))[0])


def test_scores_without_the_meaning_of_labels_have_no_pictures(tmp_path):
    folder = predictions(tmp_path)
    (folder / "dataset.json").unlink()
    (tmp_path / "Dataset007_Toy" / "dataset.json").unlink()
    reader, remarks = page_of(folder)
    assert not panels_of(reader) and "give it with -d" in remarks[0] and "Scores" in reader.text_of("h2")


def test_a_summary_alone_has_a_page(tmp_path):
    folder = predictions(tmp_path)
    for path in folder.glob("*.nii.gz"):
        path.unlink()
    reader, remarks = page_of(folder)
    assert remarks == (f"no pictures: {folder} holds no label maps",) and "Scores" in reader.text_of("h2")
    assert [text for text in reader.text_of("td") if text.startswith("toy")] == ["toy_000", "toy_001", "toy_002"]


def test_images_are_those_that_the_prediction_read(tmp_path):
    folder = predictions(tmp_path)
    (folder / "summary.json").unlink()
    images = tmp_path / "Dataset007_Toy" / "imagesTr"
    record_prediction(folder, "the model", "", {"toy_001": [images / "toy_001_0000.nii.gz"]})
    reader, remarks = page_of(folder)
    assert panels_of(reader).count("image") >= 1 and not remarks
    assert "prediction of 1 case by the model" in reader.text_of("h3")
    shutil.move(images, tmp_path / "moved")
    reader, remarks = page_of(folder)
    assert "image" not in panels_of(reader) and "-i" in remarks[0]
    reader, remarks = page_of(folder, places=Places(images=tmp_path / "moved"))
    assert panels_of(reader).count("image") >= 3 and not remarks


def test_predictions_newer_than_their_scores_are_named(tmp_path):
    folder = predictions(tmp_path)
    scored_at = (folder / "summary.json").stat().st_mtime
    assert page_of(folder)[1] == ()
    os.utime(folder / "toy_001.nii.gz", (scored_at + 60, scored_at + 60))
    reader, (remark,) = page_of(folder)
    assert remark.startswith("1 label map newer than the scores (toy_001)") and "score them again" in remark
    assert remark in "".join(text for _, text in reader.texts)


def test_references_that_were_moved_can_be_named(tmp_path):
    folder = predictions(tmp_path)
    shutil.move(tmp_path / "Dataset007_Toy" / "labelsTr", tmp_path / "truth")
    reader, remarks = page_of(folder)
    assert "truth" not in panels_of(reader) and any("-r" in remark for remark in remarks)
    reader, _ = page_of(folder, places=Places(references=tmp_path / "truth"))
    assert "truth" in panels_of(reader)


def test_given_folders_without_files_of_the_cases_are_named(tmp_path):
    folder, others = predictions(tmp_path / "a"), tmp_path / "others"
    dataset = tmp_path / "a" / "Dataset007_Toy"
    shutil.copytree(dataset / "imagesTr", others / "images")
    shutil.copytree(dataset / "labelsTr", others / "labels")
    for path in [*others.glob("*/*")]:
        path.rename(path.with_name(f"other_{path.name}"))
    shutil.rmtree(dataset / "imagesTr")
    _, remarks = page_of(folder, places=Places(images=others / "images", references=others / "labels"))
    assert [remark.partition(" holds none of these cases, such as toy_000")[0] for remark in remarks] == [
        f"no images: -i {others / 'images'}", f"no truth: -r {others / 'labels'}",
    ]  # fmt: skip


def test_a_file_of_another_size_is_left_out_and_named(tmp_path):
    folder = predictions(tmp_path)
    path = tmp_path / "Dataset007_Toy" / "imagesTr" / "toy_001_0000.nii.gz"
    image, geometry = read_labels(path)
    write_labels(path, image[:-2].copy(), geometry)
    reader, remarks = page_of(folder)
    assert len(remarks) == 1 and "toy_001" in remarks[0] and "shape (6, 16, 14)" in remarks[0]
    assert remarks[0] in "".join(reader.text_of("li"))


def test_predicted_quality_is_compared_with_the_truth(tmp_path):
    folder = predictions(tmp_path, n_cases=4)
    scores = json.loads((folder / "summary.json").read_text())["metric_per_case"]
    rows = [
        {"reason": "", "case": case["case"], "class": "bright", "high": "1.1", "low": "-0.1", "is_unlike": "no",
         "predicted_dice": str(case["metrics"]["1"]["Dice"])}
        for case in scores
    ]  # fmt: skip
    rows[2] |= {"is_unlike": "yes", "reason": "intensity <odd>"}
    add_quality(folder, rows)
    reader, _ = page_of(folder)
    notes = "".join(reader.text_of("p"))
    assert "Rank correlation (Spearman): 1.000" in notes and "in 4 of 4 pairs" in notes
    assert "toy_002 is unlike the training cases: intensity <odd>" in reader.text_of("li")


@pytest.mark.parametrize(
    "content", ["", "case\n", "x,y\n1,2\n", "case,predicted_dice\ntoy_000,\n", "case,class,predicted_dice\ntoy_000\n"]
)
def test_a_quality_table_with_gaps_has_no_chart(tmp_path, content):
    folder = predictions(tmp_path)
    (folder / "quality.csv").write_text(content)
    reader, _ = page_of(folder)
    assert "predicted and true Dice" not in reader.text_of("h3")
    assert "predicted dice" not in reader.text_of("button"), "a column without content"


def test_without_scores_cases_are_ranked_by_what_is_known(tmp_path):
    folder = predictions(tmp_path, n_cases=2)
    (folder / "summary.json").unlink()
    add_uncertainty(folder)
    reader, _ = page_of(folder)
    assert "Cases in pictures, by uncertainty" in reader.text_of("h2")
    assert [title[:7] for title in reader.text_of("h3") if title.startswith("toy")] == ["toy_001", "toy_000"]
    add_quality(folder, [{"case": "toy_000", "predicted_dice": "0.2"}, {"case": "toy_001", "predicted_dice": "0.9"}])
    reader, _ = page_of(folder)
    assert "Cases in pictures, by predicted quality" in reader.text_of("h2")
    assert [title[:7] for title in reader.text_of("h3") if title.startswith("toy")] == ["toy_000", "toy_001"]


@pytest.mark.parametrize("predicted", ["all", "nothing"])
def test_empty_predictions_have_a_page(tmp_path, predicted):
    folder = predictions(tmp_path, n_cases=1)
    path = folder / "toy_000.nii.gz"
    labels, geometry = read_labels(path)
    write_labels(path, np.full_like(labels, 0 if predicted == "nothing" else 2), geometry)
    reader, remarks = page_of(folder)
    assert all("newer than the scores" in remark for remark in remarks) and "errors" in panels_of(reader)


def test_objects_have_their_scores_beside_those_of_classes(tmp_path):
    labels = np.zeros((1, 12, 12), dtype=np.uint16)
    labels[:, 2:5, 2:5], labels[:, 2:5, 6:9] = 4, 9
    content = {
        "channel_names": {"0": "a"}, "task": "instances", "labels": {"background": 0, "cell": 1}, "numTraining": 1,
        "file_ending": ".tif",
    }  # fmt: skip
    for name, values in (("reference", labels), ("predicted", np.where(labels == 9, 0, labels))):
        write_labels(tmp_path / name / "c.tif", values, Geometry(spacing=(999.0, 1.0, 1.0), ndim=2))
    evaluate_folder(tmp_path / "reference", tmp_path / "predicted", content).write(tmp_path / "predicted/summary.json")
    reader, _ = page_of(tmp_path / "predicted")
    assert "AP50, objects of all cases" in reader.text_of("th") and {"AP50 cell", "PQ cell"} <= {
        *reader.text_of("button")
    }
    cells = reader.text_of("td")
    assert (cells.count("0.5000"), cells.count("0.6667")) == (10, 5)
    # AP50, AP, Rand recall of all objects, of the mean and of the case, with the mean IoU; PQ alike, with Dice of both
    assert cells.count("0.3333") == 3 and {"rand_error cell", "VI_merge cell"} <= {*reader.text_of("button")}


def test_names_that_are_markup_are_shown_as_they_are(tmp_path):
    dataset = write_toy_dataset(tmp_path / "Dataset007_Toy", n_cases=1, shape=SHAPES["2d"], sparse=False)
    content = json.loads((dataset / "dataset.json").read_text())
    content["labels"] = {"background": 0, "<script>x</script>": 1, "a&b\"'": 2}
    (dataset / "dataset.json").write_text(json.dumps(content))
    for folder, end in (("imagesTr", "_0000.png"), ("labelsTr", ".png"), ("labelsTr_dense", ".png")):
        (dataset / folder / f"toy_000{end}").rename(dataset / folder / f"<b>x&{end}")
    write_predictions(dataset, tmp_path / "<i>predicted")
    reader, remarks = page_of(tmp_path / "<i>predicted")
    assert not remarks and not [tag for tag, _ in reader.tags if tag in ("b", "i")]
    assert "<b>x&" in reader.text_of("td") + reader.text_of("a") and "Predictions in <i>predicted" in reader.text_of(
        "h1"
    )


def test_a_fold_has_curves_scores_settings_and_its_command(tmp_path):
    dataset = write_toy_dataset(tmp_path / "Dataset007_Toy", n_cases=2, shape=SHAPES["3d"], sparse=False)
    fold = write_fold(tmp_path / "results" / "default__3d_fullres" / "fold_0", dataset)
    reader, remarks = page_of(fold)
    assert not remarks
    charts = [title for title in reader.text_of("h3") if not title.startswith("toy")]
    assert {"loss", "learning rate", "Dice on validation patches", "Dice"} <= {*charts}
    assert "autoseg_train 7 0 --set 'a <b>'" in reader.text_of("pre")
    assert any("torch 2.9.1" in text for text in reader.text_of("dd")) and "--set" in reader.text_of("td")
    assert "truth" in panels_of(reader) and "image" in panels_of(reader)


def test_folds_of_a_model_are_pooled(tmp_path):
    dataset = write_toy_dataset(tmp_path / "Dataset007_Toy", n_cases=2, shape=SHAPES["3d"], sparse=False)
    other = write_toy_dataset(tmp_path / "Dataset008_Toy", n_cases=1, shape=SHAPES["3d"], sparse=False, seed=1)
    model = tmp_path / "results" / "default__3d_fullres"
    write_fold(model / "fold_0", dataset)
    write_fold(model / "fold_1", other)
    write_fold(model / "fold_2", None, iterations=50, skipped=2)
    reader, _ = page_of(model)
    assert "3 of 3 rows" in reader.text_of("output") and "fold 1, training" in reader.text_of("li")
    lines = [line for line in reader.text_of("li") if line.startswith("fold 2: ")]
    assert lines == [
        "fold 2: not finished: 30 of 50 steps",
        "fold 2: 6 steps left out, because the loss or the gradient was not finite",
        "fold 2: its validation cases are not scored yet",
    ]


def test_a_run_that_just_began_has_a_page(tmp_path):
    fold = tmp_path / "default__2d" / "fold_all"
    fold.mkdir(parents=True)
    write_history(fold / "history.jsonl", [])
    reader, _ = page_of(fold)
    assert "its validation cases are not scored yet" in reader.text_of("li")
    write_history(fold / "history.jsonl", records(1))
    reader, _ = page_of(fold)
    assert "loss" in reader.text_of("h3")


def write_fused(folder, **images):
    """Write experts.json and a picture of ``image_0``."""
    means = {"expert": "anna <b>", "images": 2, "mean_dice": 0.8, "mean_dice_std": 0.1, "dice_background": 0.9}
    content = {
        "settings": {"method": "staple", "undecided": "ignore", "command": "autoseg_fuse_experts m -o <x>"},
        "classes": ["background", "cell"],
        "experts": [means, {**means, "expert": "ben"}],
        "agreement": {"experts": ["anna <b>", "ben"], "mean_dice": [[1.0, 0.625], [0.625, 1.0]]},
        "images": {
            name: {"case": name, "experts": ["anna <b>", "ben"], "decided": 1, "unknown": 0, "mean_dice": [value, None]}
            for name, value in images.items()
        },
    }  # fmt: skip
    folder.mkdir()
    (folder / "experts.json").write_text(json.dumps(content))
    return folder


def test_agreement_of_experts_is_shown(tmp_path):
    folder = write_fused(tmp_path / "fused", good=0.9, bad=0.2)
    reader, remarks = page_of(folder)
    assert reader.text_of("td").count("0.625") == 2 and "autoseg_fuse_experts m -o <x>" in reader.text_of("pre")
    assert remarks == (f"no pictures of bad.png, good.png: they are not in {folder / 'pictures'}",)
    assert "Dice background" not in reader.text_of("th") + reader.text_of("button")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "bad.png").write_bytes(b"picture")
    reader, remarks = page_of(folder)
    assert any(title.startswith("bad: ") for title in reader.text_of("h3")) and "of good.png" in remarks[0]


def test_the_page_is_written_where_it_is_wanted(tmp_path):
    folder = predictions(tmp_path)
    assert write_report(folder).path == folder / "report.html"
    assert write_report(folder, tmp_path / "new" / "page.html").path.is_file()
    assert write_report(folder, summary=folder / "summary.json").kind == "predictions", "a page beside is no prediction"
    with pytest.raises(ConfigError, match=r"found a folder, expected a file.*report.html"):
        write_report(folder, tmp_path)


def test_what_a_page_cannot_be_made_of_is_said(tmp_path):
    folder = predictions(tmp_path)
    dataset = tmp_path / "Dataset007_Toy"
    model = tmp_path / "results" / "default__2d"
    write_fold(model / "fold_0", None)
    (tmp_path / "empty").mkdir()
    for given, message in {
        tmp_path / "nowhere": "no such folder",
        folder / "summary.json": f"a file.*{folder}",
        tmp_path / "empty": "found neither a run",
        dataset: "found a data set",
        model.parent: "several models.*default__2d",
    }.items():
        with pytest.raises(ConfigError, match=message):
            write_report(given)
    for options, message in (
        ({"n_each": -1}, "-n -1"),
        ({"places": Places(images=tmp_path / "nowhere")}, "-i .*no such file"),
        ({"places": Places(images=tmp_path / "empty")}, "-i .*empty"),
    ):
        with pytest.raises(ConfigError, match=message):
            write_report(folder, **options)
    with pytest.raises(ConfigError, match=r"--summary .*no predictions"):
        write_report(model, summary=folder / "summary.json")
    with pytest.raises(EvaluationError, match=r"nowhere\.json: cannot be read"):
        write_report(folder, summary=tmp_path / "nowhere.json")
    for content in ("{", "[]", '{"mean": {}}'):
        (folder / "summary.json").write_text(content)
        with pytest.raises(EvaluationError, match="autoseg_evaluate_folder REFERENCE PREDICTIONS"):
            write_report(folder)
    (model / "fold_0" / "training.json").write_text("[]")
    with pytest.raises(ModelError, match=r"training.json: cannot be read"):
        write_report(model)
    assert not [*tmp_path.rglob("report.html")]
