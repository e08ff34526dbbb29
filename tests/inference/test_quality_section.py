"""The quality of a model follows from the cases that its folds left out, and from no others."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from autoseg.dataset.labels import Head, Labels
from autoseg.evaluation.cases import CaseMetrics, HeadMetrics
from autoseg.evaluation.likeness import LEAST_CASES, CaseFeatures
from autoseg.evaluation.quality import CaseQuality, HeadQuality
from autoseg.evaluation.summary import summarise
from autoseg.inference.quality_section import quality_section

NAMES = ("background", "organ", "rare")
LABELS = Labels((0, 1, 2), NAMES, tuple(Head(NAMES[k], (k,), (k,), k == 0) for k in range(3)))


def features(seed):
    rng = np.random.default_rng(seed)
    intensity, texture = (tuple(rng.normal(size=n).tolist()) for n in (7, 5))
    return CaseFeatures(spacing=(1, 1, 1), size=(9, 9, 9), intensity=(intensity,), texture=(texture,))


def metrics(dice, n_ref=100):
    n = 0 if dice is None else 100
    return HeadMetrics(
        Dice=dice, IoU=dice, TP=n, FP=0, FN=0, TN=0, n_pred=n, n_ref=n_ref, ref_volume_mm3=0, pred_volume_mm3=0,
        n_decided=1000,
    )  # fmt: skip


def write_fold(model, fold, cases, *, seen=(), kind="dense", empty=()):
    """Write a validation of ``cases`` (name -> Dice of the organ; the confidence is as high). "rare" never occurs."""
    folder = model / f"fold_{fold}" / "validation"
    folder.mkdir(parents=True)
    scored = []
    for index, (name, dice) in enumerate(cases.items()):
        (folder / f"{name}.png").write_bytes(b"")
        sizes = ((1, 0.0, 0) if name in empty else (1, dice, 100), (2, 0.0, 0))
        heads = tuple(
            HeadQuality(
                key=str(k), name=NAMES[k], soft_dice_confidence=p, pairwise_dice=None, n_voxels=n, volume=n, unit="ml"
            )
            for k, p, n in sizes
        )
        own = CaseQuality(case=name, file=f"{name}.png", n_members=1, heads=heads, features=features(index))
        own.write(folder)
        scored.append(
            CaseMetrics(
                case=name,
                reference_file="",
                prediction_file="",
                decided_fraction=1.0,
                metrics={"1": metrics(dice), "2": metrics(None, 0)},
                scored_on={"1": kind, "2": kind},
            )
        )
    summarise(scored, {"1": "organ", "2": "rare"}).write(folder / "summary.json")
    training = {"train_cases": [], "val_cases": list(cases), "seen_cases": list(seen)}
    (folder.parent / "training.json").write_text(json.dumps(training))


def scores(prefix, n):
    return {f"{prefix}{index}": 0.5 + 0.4 * index / n for index in range(n)}


def test_pairs_of_all_folds_make_the_curve(tmp_path):
    write_fold(tmp_path, "0", scores("a", 12))
    write_fold(tmp_path, "1", scores("b", 12))
    quality = quality_section(tmp_path, LABELS, ["MR"])
    organ, rare = quality.curves
    assert (quality.folds, quality.n_cases, organ.n_pairs) == (("0", "1"), 24, 24)
    assert organ.estimate(0.7).dice == pytest.approx(0.7, abs=0.02)
    assert (organ.occurrence, rare.occurrence) == (1.0, 0.0)
    assert rare.estimate(0.7) is None
    assert quality.likeness.n_cases == 24
    assert "organ +-" in str(quality)


def test_cases_that_the_weights_have_seen_count_for_the_likeness_alone(tmp_path):
    cases = scores("a", 14)
    write_fold(tmp_path, "0", cases, seen=list(cases)[:3])
    quality = quality_section(tmp_path, LABELS, ["MR"])
    assert (quality.n_cases, quality.curves[0].n_pairs, quality.likeness.n_cases) == (11, 11, 14)


def test_a_class_that_is_predicted_nowhere_gives_no_pair(tmp_path):
    write_fold(tmp_path, "0", scores("a", 14), empty=["a0", "a1"])
    assert quality_section(tmp_path, LABELS, ["MR"]).curves[0].n_pairs == 12


def test_sparse_references_are_named(tmp_path):
    write_fold(tmp_path, "0", scores("a", 12), kind="annotated voxels")
    quality = quality_section(tmp_path, LABELS, ["MR"])
    assert quality.curves[0].scored_on == "annotated voxels"


def test_few_cases_give_no_curve_and_say_so(tmp_path):
    write_fold(tmp_path, "0", scores("a", LEAST_CASES - 1))
    quality = quality_section(tmp_path, LABELS, ["MR"])
    assert quality.curves[0].estimate(0.9) is None
    assert "too few cases so far for organ, rare (3 cases, too few for the likeness of images)" in str(quality)
    assert all("at least" in reason for reason in (quality.curves[0].reason, quality.likeness.reason))


def test_without_records_there_is_no_section_and_a_damaged_fold_is_left_out(tmp_path, caplog):
    assert quality_section(tmp_path, LABELS, ["MR"]) is None
    write_fold(tmp_path, "0", scores("a", 12))
    write_fold(tmp_path, "1", scores("b", 12))
    (tmp_path / "fold_1" / "validation" / "summary.json").write_text("{")
    logger = logging.getLogger("autoseg.inference.quality_section")
    logger.addHandler(caplog.handler)
    try:
        quality = quality_section(tmp_path, LABELS, ["MR"])
    finally:
        logger.removeHandler(caplog.handler)
    assert (quality.folds, quality.n_cases) == (("0",), 12)
    assert "fold_1: its predicted quality is left out" in caplog.text
