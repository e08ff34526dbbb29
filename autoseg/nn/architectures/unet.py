"""U-Net of nnU-Net, plain or with a residual encoder, as one module without aliased weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from autoseg.core.errors import PlanError
from autoseg.core.plan import Topology
from autoseg.nn.architectures.blocks import (
    CONVOLUTION,
    NEGATIVE_SLOPE,
    TRANSPOSED_CONVOLUTION,
    Style,
    conv_stage,
    initialise,
    residual_stage,
)
from autoseg.nn.architectures.network import Network


class UNet(Network):
    """U-Net with one head per decoder stage, described by a :class:`~autoseg.core.plan.Topology`.

    All heads exist with and without deep supervision, so that weights fit both. A topology with one stage has no
    decoder; its single head then reads the encoder. Every patch edge must be divisible by the product of the strides.

    Attributes
    ----------
    stem
        One unit at full resolution (residual only).
    encoder
        Encoder stages, full resolution first.
    upsample, decoder
        Transposed convolutions and decoder stages, lowest resolution first.
    heads
        1x1 convolutions to H channels, lowest resolution first.
    output_strides
        Patch voxels per logit of each output; the full resolution, all 1, first.
    deep_supervision
        Whether ``forward`` returns a list of logits of all heads, or only those of the full resolution.

    Notes
    -----
    Source: dynamic-network-architectures ``architectures/unet.py`` (``PlainConvUNet``, ``ResidualEncoderUNet``),
    ``building_blocks/unet_decoder.py``. Equal weights, which have other names here, give equal outputs.
    """

    def __init__(self, topology: Topology, n_channels: int, n_heads: int, *, deep_supervision: bool = True) -> None:
        super().__init__()
        features, kernels, strides = topology.features, topology.kernels, topology.strides
        is_residual = topology.kind == "residual"
        styles = stage_styles(topology)
        ones = (1,) * topology.n_dims
        self.stem = (
            conv_stage(n_channels, features[0], kernels[0], ones, 1, styles[0]) if is_residual else nn.Identity()
        )
        widths = (features[0] if is_residual else n_channels, *features)
        make_stage = residual_stage if is_residual else conv_stage
        self.encoder = nn.ModuleList(
            make_stage(*stage)
            for stage in zip(widths[:-1], features, kernels, strides, topology.encoder_blocks, styles, strict=True)
        )
        upwards = range(topology.n_stages - 2, -1, -1)  # the stages whose resolution the decoder restores
        self.upsample = nn.ModuleList(
            TRANSPOSED_CONVOLUTION[topology.n_dims](
                features[stage + 1], features[stage], strides[stage + 1], strides[stage + 1]
            )
            for stage in upwards
        )
        self.decoder = nn.ModuleList(
            conv_stage(2 * features[stage], features[stage], kernels[stage], ones, n_convolutions, styles[stage])
            for stage, n_convolutions in zip(upwards, topology.decoder_blocks, strict=True)
        )
        self.heads = nn.ModuleList(
            CONVOLUTION[topology.n_dims](features[stage], n_heads, 1) for stage in (upwards or range(1))
        )
        self.output_strides = output_strides(strides)
        self.deep_supervision = deep_supervision

    def forward(self, images: Tensor) -> list[Tensor] | Tensor:
        """Return logits (B, H, *P) of images (B, C, *P).

        With deep supervision, return a list with the logits (B, H, *P / stride) of each head, full resolution first.
        """
        features = self._decode(self._encode(images))
        return self._apply_heads(features)

    def _encode(self, images: Tensor) -> list[Tensor]:
        """Return features (B, F, *P / stride) of each encoder stage for images (B, C, *P), full resolution first."""
        features = [self.stem(images)]
        for stage in self.encoder:
            features.append(stage(features[-1]))
        return features[1:]

    def _decode(self, skips: list[Tensor]) -> list[Tensor]:
        """Return features (B, F, *P / stride) of each decoder stage, lowest resolution first.

        ``skips`` are the features of the encoder stages, which are returned if there is no decoder.
        """
        features = [skips.pop()]
        for upsample, stage in zip(self.upsample, self.decoder, strict=True):
            features.append(stage(torch.cat((upsample(features[-1]), skips.pop()), dim=1)))
        return features[1:] or features

    def _apply_heads(self, features: list[Tensor]) -> list[Tensor] | Tensor:
        """Return logits (B, H, *P / stride) for the features of the decoder stages, full resolution first."""
        if not self.deep_supervision:
            full_resolution: Tensor = self.heads[-1](features[-1])
            return full_resolution
        return [head(stage) for head, stage in zip(self.heads, features, strict=True)][::-1]


def build_unet(topology: Topology, n_channels: int, n_outputs: int) -> UNet:
    """Return an initialised U-Net. Raise ``PlanError`` with all faults if lists of the topology are inconsistent."""
    faults = _topology_faults(topology)
    if min(n_channels, n_outputs) < 1:
        faults.append(f"{n_channels} channels and {n_outputs} heads, expected at least one of each")
    if faults:
        raise PlanError(f"plan: topology: found {'; '.join(faults)}. Plan this data set again.")
    network = UNet(topology, n_channels, n_outputs)
    slope = NEGATIVE_SLOPE if topology.activation == "leaky_relu" else 0.0
    network.apply(partial(initialise, negative_slope=slope))
    return network


def stage_styles(topology: Topology) -> list[Style]:
    """Return what each stage has around its convolutions; a decoder stage has that of its encoder stage."""
    return [
        Style(topology.activation, topology.normalization, topology.pooling, rate)
        for rate in (topology.dropout or (0.0,) * topology.n_stages)
    ]


def output_strides(strides: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Return the patch voxels per logit of each output of a U-Net, full resolution first. ``strides``: per stage."""
    products = [tuple(strides[0])]
    for stride in strides[1:]:
        products.append(tuple(whole * step for whole, step in zip(products[-1], stride, strict=True)))
    return tuple(products[: max(len(strides) - 1, 1)])


def _topology_faults(topology: Topology) -> list[str]:
    """Return the faults of a topology; empty if there are none."""
    if not topology.strides:
        return ["no stages, expected at least one"]
    n_stages, n_dims = topology.n_stages, topology.n_dims
    faults = [
        f"{len(entries)} {name}, expected {expected} for {n_stages} stages"
        for name, entries, expected in (
            ("features", topology.features, n_stages),
            ("kernels", topology.kernels, n_stages),
            ("encoder_blocks", topology.encoder_blocks, n_stages),
            ("decoder_blocks", topology.decoder_blocks, n_stages - 1),
        )
        if len(entries) != expected
    ]
    if n_dims not in (2, 3):
        faults.append(f"{n_dims} patch axes, expected 2 or 3")
    if any(len(entry) != n_dims for entry in (*topology.strides, *topology.kernels)):
        faults.append(f"strides or kernels of different length, expected {n_dims} axes in each")
    if any(edge % 2 == 0 for kernel in topology.kernels for edge in kernel):
        faults.append(f"even kernel edges in {topology.kernels}, expected odd ones")
    if min((*topology.features, *topology.encoder_blocks, *topology.decoder_blocks), default=0) < 1:
        faults.append("a stage without features or blocks, expected at least one of each")
    if topology.dropout and len(topology.dropout) != n_stages:
        faults.append(f"{len(topology.dropout)} dropout rates, expected none or {n_stages}")
    if any(not 0 <= rate < 1 for rate in topology.dropout):
        faults.append(f"dropout rates {topology.dropout}, expected numbers from 0 to below 1")
    if any(step != 1 for step in topology.strides[0]):
        faults.append(f"stride {topology.strides[0]} in stage 0, expected all 1")
    return faults
