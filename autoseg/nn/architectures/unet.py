"""The U-Net of nnU-Net, plain or with a residual encoder, as one module without aliased weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoseg.core.plan import Topology
from autoseg.nn.architectures.blocks import CONVOLUTION, TRANSPOSED_CONVOLUTION, conv_stage, residual_stage


class UNet(nn.Module):
    """Encoder, decoder and one head per decoder stage, described by a :class:`~autoseg.core.plan.Topology`.

    All heads exist whether deep supervision is on or not, so weights load either way. A topology with one stage has no
    decoder; its single head then reads the encoder. Every patch edge must be divisible by the product of the strides.

    Attributes
    ----------
    stem
        Residual only: one unit at full resolution.
    encoder
        Stages, full resolution first.
    upsample, decoder
        Transposed convolutions and stages, lowest resolution first.
    heads
        1x1 convolutions to (B, H, *P), lowest resolution first; the last one is the full resolution.
    deep_supervision
        Switch between a list of logits (True) and the full-resolution logits (False).

    Notes
    -----
    Source: dynamic-network-architectures ``architectures/unet.py`` (``PlainConvUNet``, ``ResidualEncoderUNet``),
    ``building_blocks/unet_decoder.py``; the same function of the same weights under other names.
    """

    def __init__(self, topology: Topology, n_channels: int, n_heads: int, *, deep_supervision: bool = True) -> None:
        super().__init__()
        features, kernels, strides = topology.features, topology.kernels, topology.strides
        is_residual = topology.kind == "residual"
        self.stem = (
            conv_stage(n_channels, features[0], kernels[0], (1,) * topology.n_dims, 1) if is_residual else nn.Identity()
        )
        widths = (features[0] if is_residual else n_channels, *features)
        make_stage = residual_stage if is_residual else conv_stage
        self.encoder = nn.ModuleList(
            make_stage(widths[stage], features[stage], kernels[stage], strides[stage], topology.encoder_blocks[stage])
            for stage in range(topology.n_stages)
        )
        upwards = range(topology.n_stages - 2, -1, -1)  # the stages whose resolution the decoder restores
        self.upsample = nn.ModuleList(
            TRANSPOSED_CONVOLUTION[topology.n_dims](
                features[stage + 1], features[stage], strides[stage + 1], strides[stage + 1]
            )
            for stage in upwards
        )
        self.decoder = nn.ModuleList(
            conv_stage(2 * features[stage], features[stage], kernels[stage], (1,) * topology.n_dims, n_convolutions)
            for stage, n_convolutions in zip(upwards, topology.decoder_blocks, strict=True)
        )
        self.heads = nn.ModuleList(
            CONVOLUTION[topology.n_dims](features[stage], n_heads, 1) for stage in (upwards or range(1))
        )
        self.deep_supervision = deep_supervision

    def forward(self, images: Tensor) -> list[Tensor] | Tensor:
        """Return logits (B, H, *P) of images (B, C, *P).

        With deep supervision a list with one entry per head, the full resolution first, else the full resolution only.
        """
        features = self._decode(self._encode(images))
        return self._apply_heads(features)

    def _encode(self, images: Tensor) -> list[Tensor]:
        """Features of each stage, full resolution first."""
        features = [self.stem(images)]
        for stage in self.encoder:
            features.append(stage(features[-1]))
        return features[1:]

    def _decode(self, skips: list[Tensor]) -> list[Tensor]:
        """Features of each decoder stage, lowest resolution first (without a decoder: the encoder's)."""
        features = [skips.pop()]
        for upsample, stage in zip(self.upsample, self.decoder, strict=True):
            features.append(stage(torch.cat((upsample(features[-1]), skips.pop()), dim=1)))
        return features[1:] or features

    def _apply_heads(self, features: list[Tensor]) -> list[Tensor] | Tensor:
        if not self.deep_supervision:
            full_resolution: Tensor = self.heads[-1](features[-1])
            return full_resolution
        return [head(stage) for head, stage in zip(self.heads, features, strict=True)][::-1]
