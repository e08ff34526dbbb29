"""nnU-Net's side of the training step: its network, loss, deep supervision, clipping and optimiser in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark_rows.step import topology


def steps(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Train as ``nnUNetTrainer.train_step`` does; the loss plus 1, since their Dice loss is minus the Dice."""
    torch.manual_seed(0)
    torch.set_num_threads(settings.get("threads", 1))
    network = network_of(topology(settings), settings["classes"])
    images = torch.from_numpy(np.load(folder / "images.npy"))
    classes = torch.from_numpy(np.load(folder / "classes.npy").astype(np.int16))[:, None]
    with torch.no_grad():
        sizes = [output.shape[2:] for output in network(images)]
    targets = [torch.nn.functional.interpolate(classes.float(), size=size, mode="nearest-exact") for size in sizes]
    loss = nnunet_loss(len(sizes))
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss(network(images), targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        return float(value.detach()) + 1

    return lambda: [step() for _ in range(settings["steps"])]


def network_of(shape: dict[str, Any], n_classes: int) -> torch.nn.Module:
    """Return their network of one channel, with stages as in a topology of ours."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from dynamic_network_architectures.initialization.weight_init import InitWeights_He

    n_axes = len(shape["strides"][0])
    network = PlainConvUNet(
        1,
        n_stages=len(shape["features"]),
        features_per_stage=shape["features"],
        conv_op=torch.nn.Conv3d if n_axes == 3 else torch.nn.Conv2d,
        kernel_sizes=shape["kernels"],
        strides=shape["strides"],
        n_conv_per_stage=shape["encoder_blocks"],
        num_classes=n_classes,
        n_conv_per_stage_decoder=shape["decoder_blocks"],
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d if n_axes == 3 else torch.nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    network.apply(InitWeights_He(1e-2))
    return network


def nnunet_loss(n_outputs: int) -> torch.nn.Module:
    """Return the loss as ``nnUNetTrainer._build_loss`` makes it for labels without regions."""
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    whole = DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)
    weights = np.array([1 / 2**index for index in range(n_outputs)])
    weights[-1] = 0
    return DeepSupervisionWrapper(whole, weights / weights.sum())
