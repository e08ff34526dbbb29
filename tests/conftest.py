"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data sets (AUTOSEG_TEST_DATA, else ../shared/data); the test is skipped without it."""
    folder = Path(os.environ.get("AUTOSEG_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "Dataset004_Hippocampus").is_dir():
        pytest.skip("real data not present (set AUTOSEG_TEST_DATA)")
    return folder
