"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from same_logging import same_logging  # noqa: F401 (a fixture that every test uses)
from toy import write_toy_dataset

from autoseg.core.plan import Topology
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.planning import extract_fingerprint, plan
from autoseg.planning.files import FINGERPRINT_FILE, PLAN_FILE, save_fingerprint, save_plan
from autoseg.planning.splits import load_or_make_splits
from autoseg.preprocessing.runner import preprocess_dataset

if TYPE_CHECKING:
    from autoseg.nn.checkpoint import Checkpoint

settings.register_profile("autoseg", deadline=None)  # slow machines are no failures
settings.load_profile("autoseg")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # or trainings would take, and say, what the machine has free just then

REPOSITORY = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of ``tests/cli/test_golden.py``."""
    parser.addoption("--regenerate", action="store_true", help="write tests/cli/golden/*.txt anew")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data sets (AUTOSEG_TEST_DATA, else ../shared/data); the test is skipped without it."""
    folder = Path(os.environ.get("AUTOSEG_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "Dataset004_Hippocampus").is_dir():
        pytest.skip("real data not present (set AUTOSEG_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five sparse 3-D toy cases; do not change them."""
    return write_toy_dataset(tmp_path_factory.mktemp("toy") / "Dataset900_Toy")


@pytest.fixture(scope="session")
def toy_workspace(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The toy data set, planned for a tiny network and preprocessed; do not change it."""
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    prepare_toy(Dataset.load(toy_folder), workspace)
    return workspace


@pytest.fixture(scope="session")
def toy_preparation() -> Callable[[Dataset, Workspace], None]:
    """Return :func:`prepare_toy`, for data sets of a test's own."""
    return prepare_toy


@pytest.fixture
def checkpoint_maker() -> Callable[..., Checkpoint]:
    """Return :func:`tiny_models.make_checkpoint`."""
    from tiny_models import make_checkpoint  # brings torch, which most tests do without

    return make_checkpoint


@pytest.fixture
def model_folder(tmp_path: Path, checkpoint_maker: Callable[..., Checkpoint]) -> Path:
    """A model folder with folds 0 and 1, 3-D, one channel, spacing (2, 1, 1)."""
    from autoseg.nn.checkpoint import save_checkpoint

    folder = tmp_path / "default__3d_fullres"
    for fold in ("0", "1"):
        save_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pt", checkpoint_maker(fold))
    return folder


def prepare_toy(dataset: Dataset, workspace: Workspace) -> None:
    """Plan, with the network shrunk to a few thousand weights, and preprocess the first configuration of the plan."""
    folder = workspace.preprocessed(dataset.name)
    fingerprint = extract_fingerprint(dataset)
    planned = plan(dataset, fingerprint, "small")
    name = "3d_fullres" if "3d_fullres" in planned.configurations else "2d"
    configuration = planned.configurations[name]
    n_dims = len(configuration.patch_size)
    tiny = configuration.model_copy(
        update={
            "patch_size": (8, 16, 16)[-n_dims:],
            "batch_size": 2,
            "topology": Topology(
                kind="plain",
                features=(8, 16),
                strides=((1,) * n_dims, (2,) * n_dims),
                kernels=((3,) * n_dims, (3,) * n_dims),
                encoder_blocks=(1, 1),
                decoder_blocks=(1,),
            ),
        }
    )
    planned = planned.model_copy(update={"configurations": {name: tiny}})
    save_fingerprint(fingerprint, folder / FINGERPRINT_FILE)
    save_plan(planned, folder / PLAN_FILE)
    load_or_make_splits(dataset, folder, fingerprint.informative_cases)
    preprocess_dataset(dataset, planned, name, folder / name)
