"""Trained models of a few weights."""

from __future__ import annotations

import torch

from autoseg.core.fingerprint import IntensityProperties
from autoseg.core.plan import Configuration, Plan, Topology
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import Checkpoint


def make_plan(n_dims=3, n_channels=1, *, spacing=(2.0, 1.0, 1.0), transpose=(0, 1, 2)):
    strides = ((1,) * n_dims, (2,) * n_dims)
    topology = Topology(
        kind="plain", features=(2, 4), strides=strides, kernels=((3,) * n_dims,) * 2, encoder_blocks=(1, 1),
        decoder_blocks=(1,),
    )  # fmt: skip
    configuration = Configuration(
        name="2d" if n_dims == 2 else "3d_fullres", spacing=spacing[3 - n_dims :], patch_size=(8,) * n_dims,
        batch_size=2, median_shape=(16.0,) * n_dims, normalization=("none",) * n_channels,
        use_mask_for_norm=(False,) * n_channels, topology=topology, batch_dice=False,
    )  # fmt: skip
    statistics = IntensityProperties(mean=0, median=0, std=1, min=0, max=1, percentile_99_5=1, percentile_00_5=0)
    return Plan(
        dataset_name="Toy", planner="small", transpose_forward=transpose,
        transpose_backward=tuple(transpose.index(axis) for axis in range(3)), original_median_spacing=spacing,
        original_median_shape=(1 if spacing[0] > 900 else 9, 16, 16),
        channel_names=tuple(f"channel{index}" for index in range(n_channels)), intensities=(statistics,) * n_channels,
        configurations={configuration.name: configuration},
    )  # fmt: skip


def make_dataset_json(n_channels=1, ending=".nii.gz"):
    return {
        "channel_names": {str(index): f"channel{index}" for index in range(n_channels)},
        "labels": {"background": 0, "organ": 1, "ignore": 2},
        "file_ending": ending,
        "numTraining": 1,
        "name": "Toy",
    }


def make_checkpoint(fold="0", *, n_dims=3, n_channels=1, ending=".nii.gz", **plan_options):
    plan = make_plan(n_dims, n_channels, **plan_options)
    configuration = next(iter(plan.configurations.values()))
    torch.manual_seed(int(fold) if fold.isdigit() else 99)
    network = build_network(configuration.topology, n_channels, 2)
    return Checkpoint(
        weights=network.state_dict(), plan=plan, configuration=configuration.name,
        dataset=make_dataset_json(n_channels, ending), mirror_axes=tuple(range(n_dims)), fold=fold,
    )  # fmt: skip
