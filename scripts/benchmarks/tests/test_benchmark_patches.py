"""The row on patches: our side runs on what is made, and the check sees a wrong shape, setting or distribution."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_rows import patches, patches_ours

FLAT = {"patch": [24, 20], "batch": 2, "batches": 2, "channels": 2, "small": [16, 16], "seeds": [0, 0]}
SOLID = {"patch": [8, 24, 20], "batch": 2, "batches": 2, "channels": 1, "small": [6, 16, 16], "seeds": [0, 0]}


def both_sides(folder: Path, settings: dict[str, Any]) -> None:
    """Run our side, and take it for the other one too."""
    patches.make(folder, settings)
    run = patches_ours.batches(folder, settings)
    first, second = run(), run()
    assert not np.array_equal(first["images"], second["images"])
    for side in ("ours", "theirs"):
        np.savez(folder / f"{side}.npz", **first)
    for kind in ("features.npy", "settings.json"):
        shutil.copy(folder / f"ours_{kind}", folder / f"theirs_{kind}")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(patches_ours, "SMALL_PATCHES", 60)


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("settings", [FLAT, SOLID], ids=["2d", "3d"])
def test_sides_that_do_the_same_agree(tmp_path, settings, is_sparse):
    shape = [1, 48, 40] if settings is FLAT else [14, 48, 40]
    settings = {**settings, "shapes": [shape, shape], "is_sparse": is_sparse}
    both_sides(tmp_path, settings)
    finding = patches.check(tmp_path, settings)
    assert finding.holds, finding.text
    assert np.isnan(np.load(tmp_path / "ours_features.npy")[:, -1]).all() == is_sparse


def test_what_differs_is_seen(tmp_path):
    settings = {**SOLID, "shapes": [[14, 48, 40]], "is_sparse": False}
    both_sides(tmp_path, settings)
    recipe = json.loads((tmp_path / "theirs_settings.json").read_text())
    (tmp_path / "theirs_settings.json").write_text(json.dumps({**recipe, "scaling_range": [0.7, 1.25]}))
    finding = patches.check(tmp_path, settings)
    assert not finding.holds and finding.text.endswith("different: scaling_range")
    (tmp_path / "theirs_settings.json").write_text(json.dumps(recipe))
    found = np.load(tmp_path / "theirs_features.npy")
    np.save(tmp_path / "theirs_features.npy", found + 0.3 * (np.arange(9) == 5))
    finding = patches.check(tmp_path, settings)
    assert not finding.holds and "(roughness, " in finding.text
    np.save(tmp_path / "theirs_features.npy", found)
    np.savez(tmp_path / "theirs.npz", images=np.zeros(3), codes=np.zeros(3))
    assert patches.check(tmp_path, settings).text.endswith("different: shape of images, shape of codes")


def test_features_by_hand():
    image = np.zeros((1, 1, 8, 8), np.float32)
    image[..., ::2] = 1
    codes = (np.arange(8) >= 4)[:, None] & np.ones((8, 8), bool)
    mean, deviation, low, middle, high, rough, rough_0, share, contrast = patches.features(image, codes[None])[0]
    assert (mean, deviation, share) == pytest.approx((0.5, 0.5, 0.5), abs=1e-4)
    assert (low, middle, high) == (0, 0.5, 1)
    assert (rough, rough_0, contrast) == pytest.approx((2, 0, 0), abs=1e-4)
