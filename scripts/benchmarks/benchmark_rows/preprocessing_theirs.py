"""nnU-Net's side of the rows on preprocessing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark_rows.cases import DATASET
from benchmark_rows.preprocessing import CONFIGURATION


def case(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Preprocess the only case of the data set and save it as nnU-Net does."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(json.loads((folder / "nnunet_plans.json").read_text()))
    configuration = manager.get_configuration(CONFIGURATION)
    images = [str(folder / DATASET / "imagesTr" / "case_000_0000.nii.gz")]
    labels = str(folder / DATASET / "labelsTr" / "case_000.nii.gz")
    content = json.loads((folder / DATASET / "dataset.json").read_text())
    kept: dict[str, Any] = {}

    class Keeping(DefaultPreprocessor):  # type: ignore[misc]
        def run_case(self, *arguments: Any) -> Any:
            result = super().run_case(*arguments)
            kept.update(image=result[0], codes=result[1])
            return result

    preprocessor = Keeping(verbose=False)
    output = folder / "nnunet_cache"
    output.mkdir(exist_ok=True)

    def run() -> dict[str, Any]:
        for path in output.iterdir():
            path.unlink()
        preprocessor.run_case_save(str(output / "case_000"), images, labels, manager, configuration, content)
        return dict(kept)

    return run


def command_line(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Plan and preprocess the data set into an empty folder; return the number of cached cases."""
    raw, preprocessed = folder / "nnunet_raw", folder / "nnunet_preprocessed"
    if not (raw / DATASET).exists():
        raw.mkdir(exist_ok=True)
        (raw / DATASET).symlink_to(folder / DATASET, target_is_directory=True)
    environment = os.environ | {
        "nnUNet_raw": str(raw),
        "nnUNet_preprocessed": str(preprocessed),
        "nnUNet_results": str(folder / "nnunet_results"),
    }
    program = str(Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess")
    arguments = [program, "-d", "1", "-npfp", "2", "-np", "2", "2", "2"]

    def run() -> int:
        shutil.rmtree(preprocessed, ignore_errors=True)
        subprocess.run(arguments, check=True, capture_output=True, encoding="utf-8", env=environment)
        return len(list((preprocessed / DATASET / f"nnUNetPlans_{CONFIGURATION}").glob("*.pkl")))

    return run
