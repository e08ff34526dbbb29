"""The partial losses spelled out: float64, one-hot, voxel by voxel. Shares no code with the package."""

from __future__ import annotations

import torch


def admissible(codes, label_sets):
    """(B, V, K) bool: what each voxel may be."""
    return torch.stack([table[sample.flatten().long()] for sample, table in zip(codes, label_sets, strict=True)])


def naive_cross_entropy(logits, codes, label_sets, weights=None, voxel_weights=None):
    scores = logits.double().flatten(2)
    sets = admissible(codes, label_sets)
    importance = torch.ones(scores.shape[1]).double() if weights is None else weights.double()
    evidence = torch.ones(codes.shape) if voxel_weights is None else voxel_weights
    total, norm = scores.sum() * 0, 0.0
    for sample in range(len(scores)):
        for voxel in range(scores.shape[2]):
            members = sets[sample, voxel]
            weight = float(evidence[sample].flatten()[voxel])
            if members.any() and not members.all() and weight > 0:
                z = scores[sample, :, voxel]
                weight *= float(importance[members].mean())
                total = total + weight * (z.logsumexp(0) - z[members].logsumexp(0))
                norm += weight
    return total / norm if norm else total


def naive_dice(logits, codes, label_sets, regions=None, *, batch, voxel_weights=None, smooth=1e-5):
    scores = logits.double().flatten(2)
    n_classes = label_sets.shape[2]
    p = scores.softmax(1)[:, 1:] if regions is None else scores.sigmoid()
    heads = torch.eye(n_classes).bool()[1:] if regions is None else regions
    sets = admissible(codes, label_sets)[:, None]  # (B, 1, V, K)
    inside, outside = heads[None, :, None], ~heads[None, :, None]
    positive = sets.any(3) & ~(sets & outside).any(3)  # (B, H, V)
    decided = positive | (sets.any(3) & ~(sets & inside).any(3))
    evidence = torch.ones(codes.shape) if voxel_weights is None else voxel_weights
    mask = decided * evidence.flatten(1).double()[:, None]
    sums = torch.stack([p * positive * mask, (p + positive) * mask, mask]).sum(3)
    overlap, total, known = sums.sum(1, keepdim=True) if batch else sums
    dice = (2 * overlap + smooth) / (total + smooth)
    return (1 - dice)[known > 0].mean() if (known > 0).any() else scores.sum() * 0


def naive_bce(logits, codes, label_sets, regions, weights=None, voxel_weights=None):
    scores = logits.double().flatten(2)
    importance = torch.ones(len(regions)).double() if weights is None else weights.double()
    sets = admissible(codes, label_sets)
    evidence = torch.ones(codes.shape) if voxel_weights is None else voxel_weights
    total, norm = scores.sum() * 0, 0.0
    for sample in range(len(scores)):
        for voxel in range(scores.shape[2]):
            members = sets[sample, voxel]
            weight = float(evidence[sample].flatten()[voxel])
            for head, region in enumerate(regions):
                is_positive = not (members & ~region).any()
                if weight == 0 or not members.any() or not (is_positive or not (members & region).any()):
                    continue
                z = scores[sample, head, voxel]
                factor = weight * float(importance[head])
                total = total + factor * torch.nn.functional.softplus(-z if is_positive else z)
                norm += factor
    return total / norm if norm else total
