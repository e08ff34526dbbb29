from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import run_command
from PIL import Image


@pytest.mark.slow
def test_a_picture_of_patches_before_and_after(toy_folder, toy_workspace, tmp_path):
    picture = tmp_path / "deep" / "patches.png"
    settings = ("--set", "misalignment.probability=1", "augmentation.missing_parts.enabled=false", "batch_size=2")
    line = (toy_folder, "--augmentation", "em", "-n", 2, *settings, "-o", picture, "--json")
    done = run_command("preview_augmentation", *line, root=toy_workspace.root)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert listed["augmentation"] == "em" and len(listed["patches"]) == 2
    assert any("section" in move for patch in listed["patches"] for move in patch["moved_sections"])
    assert np.asarray(Image.open(picture)).std() > 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--augmentation", "en"), "em"),
        (("--set", "misalignment.enabled=false"), "only the recipe em has this operation"),
        (("--augmentation", "em", "--set", "flip.z_transpose=true"), "as many voxels along z as along x"),
    ],
)
def test_mistakes_are_the_users(toy_folder, toy_workspace, options, message):
    done = run_command("preview_augmentation", toy_folder, *options, root=toy_workspace.root)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
