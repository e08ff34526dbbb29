"""A device gives what the CPU gives: losses, patches, training, prediction. AUTOSEG_TEST_DEVICE names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from moving import moving

from autoseg.augmentation.cut_noise import CutNoise
from autoseg.augmentation.em import EmOperations
from autoseg.augmentation.recipes import em_recipe
from autoseg.cases.case import Case
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.inference.predictor import Predictor
from autoseg.nn.checkpoint import load_checkpoint
from autoseg.nn.losses.label_sets import LabelSetLoss
from autoseg.sampling.batch import Batch
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.loader import make_loader
from autoseg.training.fold import build_parts, train_fold
from autoseg.training.optim import OptimizerConfig, build_optimization
from autoseg.training.prepare import prepare_fold
from autoseg.training.request import FoldRequest
from autoseg.training.run_checkpoints import FINAL
from autoseg.training.run_config import RunOptions
from autoseg.training.trainer import training_step

pytestmark = pytest.mark.gpu
CPU = torch.device("cpu")
SETTINGS = ("iterations_per_epoch=4", "validation_iterations=2", "background_prior=0.5", "teacher_weight=0.1")


@pytest.fixture(scope="module")
def device() -> torch.device:
    name = os.environ.get("AUTOSEG_TEST_DEVICE")
    if name is None and not torch.cuda.is_available():
        pytest.skip("no GPU (AUTOSEG_TEST_DEVICE=cpu runs these tests on the CPU)")
    return torch.device(name or "cuda")


@pytest.fixture
def request_of(toy_folder, toy_workspace, tmp_path, device):
    def make(name: str, precision: str = "float32", where: torch.device = device, iterations: int = 8) -> FoldRequest:
        settings = (*SETTINGS, f"precision={precision}")
        run = RunOptions("0", iterations=iterations, settings=settings, workers=1, device=str(where))
        return replace(prepare_fold(toy_workspace, Dataset.load(toy_folder), run), folder=tmp_path / name / "fold_0")

    return make


@pytest.mark.parametrize("has_regions", [False, True], ids=["softmax", "sigmoid"])
@pytest.mark.parametrize("scale", [1.0, 200.0], ids=["usual", "underflowing"])
def test_losses_and_their_gradients_are_those_of_the_cpu(device, has_regions, scale):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(2, 5, 12, 16, 16, generator=generator)
    codes = torch.randint(0, 9, (2, 12, 16, 16), generator=generator)
    sets = torch.cat([torch.eye(5).bool(), torch.rand(4, 5, generator=generator) < 0.6]).expand(2, -1, -1).contiguous()
    sets[:, 5] = True
    regions = torch.tensor([[0, 1, 1, 1, 1], [0, 0, 1, 1, 0]]).bool() if has_regions else None
    results = []
    for where in (CPU, device):
        own = logits[:, : 2 if has_regions else 5].to(where).requires_grad_()
        loss = LabelSetLoss(None if regions is None else regions.to(where), batch_dice=True)
        value = loss(own, codes.to(where), sets.to(where))
        value.backward()
        results.append((value.detach().cpu(), own.grad.cpu()))
    (value, gradient), (found, found_gradient) = results
    assert torch.allclose(found, value, rtol=1e-4)
    assert torch.allclose(found_gradient, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("kind", ["moved", "moved in the plane", "em"])
def test_patches_are_those_of_the_cpu(request_of, device, kind):
    request = request_of("patches")
    recipes = {
        "moved": moving(share=0.8),
        "moved in the plane": moving(180, in_plane=True, share=0.8),
        "em": em_recipe(request.configuration, EmOperations(cut_noise=CutNoise(enabled=False))),  # its noise differs
    }

    def batches(where: torch.device | None) -> list[Batch]:
        sources = [request.cache.source(name) for name in request.train_cases]
        options = {"labels": request.dataset.labels, "start": 0, "stop": 6, "seed": 2, "device": where}
        return list(make_loader(sources, request.configuration, SamplingConfig(), recipes[kind], **options))

    for one, other in zip(batches(None), batches(device), strict=True):
        assert other.images.device.type == device.type
        assert torch.allclose(one.images, other.images.cpu(), atol=1e-3)
        assert (one.codes == other.codes.cpu()).float().mean() > 0.999  # a tie may fall to either side


def test_batches_are_whole_however_long_the_device_computes(request_of, device):
    request = request_of("ahead")

    def batches(where: torch.device | None) -> Iterator[Batch]:
        sources = [request.cache.source(name) for name in request.train_cases]
        options = {"labels": request.dataset.labels, "start": 0, "stop": 8, "seed": 3, "device": where}
        return make_loader(sources, request.configuration, SamplingConfig(), moving(share=0.8), **options)

    work, images = torch.full((1024, 1024), 1e-3, device=device), []
    for batch in batches(device):
        for _ in range(20 if device.type == "cuda" else 1):
            work = (work @ work).clamp(max=1e-3)
        images.append(batch.images.clone())  # computed after the products, while the next batch is copied
    for one, other in zip(batches(None), images, strict=True):
        assert torch.allclose(one.images, other.cpu(), atol=1e-3)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_all_weights_are_updated_in_one_kernel_as_on_the_cpu(device, name):
    results = []
    for where in (CPU, device):
        torch.manual_seed(0)
        network = torch.nn.Conv3d(2, 8, 3).to(where)
        built = build_optimization(network, OptimizerConfig(name=name, learning_rate=0.1), 10)
        for step in range(3):
            for weight in network.parameters():
                weight.grad = torch.full_like(weight, 0.1 * (step + 1))
            built.optimizer.step()
        if where.type == "cuda":
            assert all(group["fused"] for group in built.optimizer.param_groups)
        results.append(torch.cat([weight.detach().cpu().flatten() for weight in network.parameters()]))
    assert torch.allclose(*results, rtol=1e-4, atol=1e-5)


def test_a_step_of_training_does_what_it_does_on_the_cpu(request_of, device):
    changes = []
    for where in (CPU, device):
        parts = build_parts(request_of(str(where), where=where), "float32")
        batch = next(iter(parts.training_batches(0))).to(CPU)
        before = [weight.detach().cpu().clone() for weight in parts.network.parameters()]
        parts.optimization.set_learning_rate(0)
        loss = training_step(parts, batch, 0, 12.0).loss
        after = [weight.detach().cpu() for weight in parts.network.parameters()]
        changes.append((float(loss), torch.cat([(b - a).flatten() for a, b in zip(before, after, strict=True)])))
    (loss, change), (found, found_change) = changes
    assert found == pytest.approx(loss, rel=1e-2)  # the noise that is drawn on a device differs
    assert torch.nn.functional.cosine_similarity(change, found_change, dim=0) > 0.9


def test_no_step_waits_for_the_device(request_of, device):
    if device.type != "cuda":
        pytest.skip("a CPU waits for nothing")
    parts = build_parts(request_of("waits"), "bfloat16")
    batches = parts.training_batches(0)
    for iteration in range(3):
        training_step(parts, next(batches), iteration, 12.0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for iteration in range(3, 6):
            training_step(parts, next(batches), iteration, 12.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_run_that_was_stopped_goes_on(request_of, device, precision):
    if device.type == "cpu" and precision == "float16":
        pytest.skip("the CPU's scaler knows no float16 convolutions in every build")
    whole, stopped = request_of("whole", precision), request_of("stopped", precision)
    train_fold(whole)
    steps = iter(range(3))
    assert not train_fold(stopped, should_stop=lambda: next(steps, None) is None).is_finished
    assert train_fold(stopped, resume=True).is_finished
    expected, found = (load_checkpoint(request.folder / FINAL).weights for request in (whole, stopped))
    norm = sum(float((expected[name] - found[name]).float().norm()) for name in expected)
    size = sum(float(expected[name].float().norm()) for name in expected)
    assert norm < 0.02 * size  # kernels of a GPU sum in no fixed order
    assert all(torch.isfinite(weights).all() for weights in found.values())


def test_predictions_are_those_of_the_cpu(model_folder: Path, device):
    image = np.random.default_rng(0).normal(size=(1, 12, 20, 18)).astype(np.float32)
    geometry = Geometry(spacing=(2.0, 1.0, 1.0))
    results = []
    for where in (CPU, device):
        predictor = replace(Predictor.load(model_folder, device=str(where)), autocast_dtype=None)
        results.append(predictor.predict_probabilities(image, geometry)[1])
    assert np.allclose(*results, atol=2e-3)


def test_the_type_that_is_chosen_predicts_nearly_what_float32_does(model_folder: Path, device):
    image = np.random.default_rng(1).normal(size=(1, 12, 20, 18)).astype(np.float32)
    case = Case("image", image, Geometry(spacing=(2.0, 1.0, 1.0)))
    chosen = Predictor.load(model_folder, device=str(device))
    exact = replace(chosen, autocast_dtype=None)
    assert (chosen.predict_case(case) == exact.predict_case(case)).mean() > 0.98


def test_a_fast_prediction_is_that_of_the_cpu(model_folder: Path, device):
    image = np.random.default_rng(2).normal(size=(1, 12, 20, 18)).astype(np.float32)
    geometry = Geometry(spacing=(2.0, 1.0, 1.0))
    results = []
    for where in (CPU, device):
        predictor = replace(Predictor.load(model_folder, device=str(where), fast=True), autocast_dtype=None)
        results.append(predictor.predict_probabilities(image, geometry)[1])
    assert np.allclose(*results, atol=2e-3)
