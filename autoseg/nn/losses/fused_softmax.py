"""Fused forward and backward pass of the sums over voxels in the losses of a softmax: one pass over the logits each.

Nothing of the size of the logits is stored between the passes. The backward pass computes the probabilities again,
block by block in the processor's cache, which costs less than writing them to memory and reading them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from autoseg.nn.losses.code_tables import check_shapes, informative_codes, look_up, look_up_heads
from autoseg.nn.losses.voxel_blocks import LossSums, Scratch, VoxelBlock, blocks, count_codes, is_on_cpu, sum_by_index

TINY = 1e-30
"""Sum of the powers of a set below which it has underflowed in float32. (The largest power of all classes is 1.)"""
FEW = 0.3
"""Share of informative voxels in a block up to which only these are processed. Otherwise the others get weight 0."""


class _Tables(NamedTuple):
    """Properties of each code."""

    own: Tensor | None
    """(B, N) int64: the class of a code with one class, otherwise 0. None: the code of every voxel is its class."""
    weights: Tensor | None
    """(B, N): 1 for informative codes, otherwise 0. None: every voxel is informative."""
    class_weights: Tensor | None
    """(B, N): class weights of the codes. None: all 1."""
    is_single: Tensor
    """(B, N): 1 for codes with one class, otherwise 0."""
    members: Tensor
    """(B, N, K): 1 for the classes of a code, otherwise 0; all 1 for an uninformative code."""
    has_sets: Tensor
    """(B,) bool, on the CPU: whether a sample may have voxels with sets of several classes. All True where the label
    sets are on a device that would have to be waited for."""

    def of(self, samples: slice) -> _Tables:
        """Return the tables of the given samples."""
        return _Tables(*(None if table is None else table[samples] for table in self))  # type: ignore[arg-type]


def softmax_sums(
    logits: Tensor,
    codes: Tensor,
    label_sets: Tensor,
    class_weights: Tensor | None = None,
    voxel_weights: Tensor | None = None,
) -> LossSums:
    """Return the sums over voxels for cross entropy and Dice of a softmax over classes, differentiable in the logits.

    Parameters
    ----------
    logits
        (B, K, *P), any floating type. Sums are float64 for float64 logits, otherwise float32.
    codes
        (B, *P) integers < N.
    label_sets
        (B, N, K) bool, on the CPU or on the device of the logits.
    class_weights
        (K,) factors of the likelihood. A set gets the mean weight of its classes. None: all 1.
    voxel_weights
        (B, *P), non-negative factors in every sum. None: all 1.

    Returns
    -------
    LossSums
        For H = K heads.
    """
    check_shapes(logits, codes, label_sets)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    sets = label_sets.to(logits.device, non_blocking=True)
    voxels = codes.flatten(1)
    flat_weights = None if voxel_weights is None else voxel_weights.detach().flatten(1).to(dtype)
    occurrences = count_codes(voxels, sets.shape[1]).to(dtype)
    counts = occurrences if flat_weights is None else count_codes(voxels, sets.shape[1], flat_weights).to(dtype)
    code_weights = None if class_weights is None else _mean_weight(sets, class_weights.to(logits.device, dtype))
    tables = _tables(label_sets, sets, occurrences, code_weights)
    likelihood, overlap, predicted = _SoftmaxSums.apply(  # type: ignore[no-untyped-call]
        logits.flatten(2), voxels, flat_weights, *tables
    )
    informative = informative_codes(sets)
    is_single = tables.is_single.bool()[..., None]
    weighted = counts * informative
    return LossSums(
        likelihood=likelihood,
        weight=(weighted if code_weights is None else weighted * code_weights).sum(),
        overlap=overlap,
        predicted=predicted,
        true=(counts[..., None] * (sets & is_single)).sum(1),
        known=(counts[..., None] * (is_single | (informative[..., None] & ~sets))).sum(1),
    )


def _mean_weight(sets: Tensor, weights: Tensor) -> Tensor:
    """Return (B, N): mean of the ``weights`` (K,) of the classes of each set, ``sets`` (B, N, K); 0 if it is empty."""
    return (sets * weights).sum(2) / sets.sum(2).clamp_min(1)


def _tables(label_sets: Tensor, sets: Tensor, occurrences: Tensor, code_weights: Tensor | None) -> _Tables:
    """Return the tables of all codes.

    ``label_sets`` (B, N, K) is the caller's table, which may be on the CPU and can then be read without waiting;
    ``sets`` is the same table on the device of the logits. ``occurrences`` (B, N): number of voxels of each code.
    ``code_weights`` (B, N): class weights; None: all 1.
    """
    informative, size = informative_codes(label_sets), label_sets.sum(2)
    is_single, is_set = informative & (size == 1), informative & (size > 1)
    own = torch.where(is_single, label_sets.to(torch.uint8).argmax(2), 0)
    is_complete = is_class = False
    device = occurrences.device
    if is_on_cpu(occurrences) and is_on_cpu(label_sets):
        occurs = occurrences > 0
        is_set = is_set & occurs
        is_complete = not (occurs & ~informative).any()
        is_class = not (occurs & (~is_single | (own != torch.arange(own.shape[1])))).any()
    return _Tables(
        own=None if is_class else own.to(device),
        weights=None if is_complete else informative.to(occurrences),
        class_weights=code_weights,
        is_single=is_single.to(occurrences),
        members=(sets | ~informative.to(device)[..., None]).to(occurrences),
        has_sets=is_set.any(1) if is_on_cpu(is_set) else torch.ones(len(is_set), dtype=torch.bool),
    )


class _Voxels(NamedTuple):
    """Codes and weights of c voxels of b samples."""

    codes: Tensor
    """(b, c) int64."""
    weight: Tensor | None
    """(b, 1, c): weight of each voxel, 0 if it is uninformative. None: all 1."""
    cost_weight: Tensor | None
    """(b, 1, c): weight of each voxel's likelihood, which is ``weight`` times its class weight. None: all 1."""
    chosen: Tensor | None
    """(c,) int64: indices of these voxels in the block. None: they are all voxels of the block."""

    @classmethod
    def read(cls, codes: Tensor, flat_weights: Tensor | None, tables: _Tables) -> _Voxels:
        """Return the voxels of a block, of which ``codes`` and weights are (b, v).

        On a CPU, only the informative voxels are returned if they are few.
        """
        numbers = codes.long()
        weight = None if tables.weights is None else look_up(tables.weights, numbers)
        chosen = None
        if weight is not None and is_on_cpu(weight) and len(weight) == 1 and weight.sum() <= FEW * weight.numel():
            chosen = weight[0].nonzero()[:, 0]
            numbers, weight = numbers[:, chosen], None
            flat_weights = None if flat_weights is None else flat_weights[:, chosen]
        if flat_weights is not None:
            weight = flat_weights if weight is None else weight * flat_weights
        cost_weight = weight
        if tables.class_weights is not None:
            cost_weight = look_up(tables.class_weights, numbers)
            cost_weight = cost_weight if weight is None else cost_weight * weight
        return cls(
            codes=numbers,
            weight=None if weight is None else weight[:, None],
            cost_weight=None if cost_weight is None else cost_weight[:, None],
            chosen=chosen,
        )

    def own(self, tables: _Tables) -> Tensor:
        """Return (b, 1, c) int64: the class of each voxel whose set has one class, otherwise 0."""
        return (self.codes if tables.own is None else look_up(tables.own, self.codes))[:, None]

    def pick(self, scores: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the logits (b, K, c) of these voxels, given those of the block (b, K, v)."""
        if self.chosen is not None:
            scores = scores.gather(2, self.chosen.expand(1, scores.shape[1], -1))
        return scores.to(dtype)

    def share(self, norm: Tensor) -> Tensor:
        """Return (b, 1, c): weight of each voxel divided by the sum of its powers, ``norm`` (b, 1, c)."""
        return norm.reciprocal() if self.weight is None else self.weight / norm


class _SoftmaxSums(torch.autograd.Function):
    """Sums ``likelihood`` (), ``overlap`` and ``predicted`` (B, K), see :class:`LossSums`.

    The *powers* of a voxel are exp(z - max z) of its logits z.
    """

    @staticmethod
    def forward(
        context: Any, scores: Tensor, codes: Tensor, flat_weights: Tensor | None, *fields: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums for logits ``scores`` (B, K, V), codes and weights (B, V), and the fields of the tables."""
        context.save_for_backward(scores, codes, flat_weights, *fields)
        tables = _Tables(*fields)  # type: ignore[arg-type]
        likelihood = tables.members.new_zeros(())
        overlap, predicted = tables.members.new_zeros(2, *scores.shape[:2])
        scratch = Scratch(tables.members)
        with torch.autocast(scores.device.type, enabled=False):
            for block, part, voxels, z in _block_inputs(scores, codes, flat_weights, tables):
                sums = _sums_of_sets if part.has_sets.any() else _sums_of_classes
                cost, hits, total = sums(z, voxels, part, scratch)
                likelihood += cost
                overlap[block[0]] += hits
                predicted[block[0]] += total
        return likelihood, overlap, predicted

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient (B, K, V) of the logits, for the gradients of the sums, (), (B, K) and (B, K)."""
        scores, codes, flat_weights, *fields = context.saved_tensors
        tables = _Tables(*fields)
        result = torch.empty_like(scores)
        scratch = Scratch(tables.members)
        with torch.autocast(scores.device.type, enabled=False):
            for block, part, voxels, z in _block_inputs(scores, codes, flat_weights, tables):
                target = result[block[0], :, block[1]]
                is_direct = voxels.chosen is None and z.dtype == target.dtype
                out = target if is_direct else scratch.get("gradient", z.shape)
                sum_gradients = (gradients[0], gradients[1][block[0]], gradients[2][block[0]])
                gradient = _gradient_of_sets if part.has_sets.any() else _gradient_of_classes
                gradient(z, voxels, part, sum_gradients, scratch, out)
                if voxels.chosen is not None:
                    target.zero_().scatter_(2, voxels.chosen.expand_as(out), out.to(target.dtype))
                elif not is_direct:
                    target.copy_(out)
        return result, *(None for _ in range(2 + len(fields)))


def _block_inputs(
    scores: Tensor, codes: Tensor, flat_weights: Tensor | None, tables: _Tables
) -> Iterator[tuple[VoxelBlock, _Tables, _Voxels, Tensor]]:
    """Yield each block with its tables, voxels and logits (b, K, c). ``scores`` (B, K, V), codes and weights (B, V)."""
    for samples, columns in blocks(*scores.shape, on_cpu=is_on_cpu(scores)):
        part = tables.of(samples)
        voxels = _Voxels.read(
            codes[samples, columns], None if flat_weights is None else flat_weights[samples, columns], part
        )
        yield (samples, columns), part, voxels, voxels.pick(scores[samples, :, columns], tables.members.dtype)


def _shifted(z: Tensor, scratch: Scratch) -> Tensor:
    """Return logits (b, K, c) minus the largest logit of each voxel."""
    return torch.sub(z, z.amax(1, keepdim=True), out=scratch.get("powers", z.shape))


def _sums_of_classes(z: Tensor, voxels: _Voxels, tables: _Tables, scratch: Scratch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums (), (b, K) and (b, K) for logits ``z`` (b, K, c) of voxels with one class or no information."""
    shifted, index = _shifted(z, scratch), voxels.own(tables)
    own = shifted.gather(1, index)  # (b, 1, c)
    powers = shifted.exp_()
    norm = powers.sum(1, keepdim=True)
    share = voxels.share(norm)
    predicted = (share @ powers.mT)[:, 0]
    overlap = sum_by_index((own.exp() * share)[:, 0], index[:, 0], z.shape[1])
    costs = norm.log_().sub_(own)
    return (costs if voxels.cost_weight is None else costs.mul_(voxels.cost_weight)).sum(), overlap, predicted


def _gradient_of_classes(
    z: Tensor, voxels: _Voxels, tables: _Tables, sum_gradients: tuple[Tensor, ...], scratch: Scratch, out: Tensor
) -> None:
    r"""Write the gradient (b, K, c) of the logits ``z`` (b, K, c) to ``out``, for voxels with one class each.

    It is :math:`p_j [u t_j + w - u \sum_k p_k t_k - u p_{own} o_{own}]`. The class of the voxel has the extra term
    :math:`u p_{own} o_{own} - w`. Here u is the weight of the voxel and w that of its likelihood; t and o are the
    gradients of ``predicted`` and ``overlap`` in ``sum_gradients``: (), (b, K) and (b, K).
    """
    likelihood, overlap, predicted = sum_gradients
    powers, index = _shifted(z, scratch).exp_(), voxels.own(tables)
    norm = powers.sum(1, keepdim=True)  # (b, 1, c), like all that follows
    share = voxels.share(norm)
    boost = powers.gather(1, index).mul_(share).mul_(look_up(overlap, index[:, 0])[:, None])
    own = (likelihood if voxels.cost_weight is None else voxels.cost_weight * likelihood) - boost
    common = torch.addcmul(own, share, predicted[:, None] @ powers, value=-1).div_(norm)
    factor = torch.addcmul(common, predicted[..., None], share, out=scratch.get("factor", z.shape))
    torch.mul(powers, factor, out=out).scatter_add_(1, index, own.neg_())


def _sums_of_sets(z: Tensor, voxels: _Voxels, tables: _Tables, scratch: Scratch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums (), (b, K) and (b, K) for logits ``z`` (b, K, c) of voxels with any label sets."""
    powers = _shifted(z, scratch).exp_()
    norm = powers.sum(1, keepdim=True)
    members = look_up_heads(tables.members, voxels.codes, out=scratch.get("members", z.shape))
    inside = torch.mul(members, powers, out=scratch.get("inside", z.shape))
    mass = inside.sum(1, keepdim=True)
    costs = (norm / mass).log_()
    if not is_on_cpu(z):
        exact = norm.log() + z.amax(1, keepdim=True) - _inside(z, members).logsumexp(1, keepdim=True)
        costs = torch.where(mass < TINY, exact, costs)
    elif (underflowed := _underflowed(mass)) is not None:
        sample, voxel, chosen = _underflowed_logits(z, members, underflowed)
        costs[sample, 0, voxel] = norm[sample, 0, voxel].log() + z[sample, :, voxel].amax(1) - chosen.logsumexp(1)
    share = voxels.share(norm)
    single = share * look_up(tables.is_single, voxels.codes)[:, None]
    overlap = (single @ inside.mT)[:, 0]
    predicted = (single @ powers.mT)[:, 0] + ((share - single) @ torch.sub(powers, inside, out=inside).mT)[:, 0]
    return (costs if voxels.cost_weight is None else costs.mul_(voxels.cost_weight)).sum(), overlap, predicted


def _gradient_of_sets(
    z: Tensor, voxels: _Voxels, tables: _Tables, sum_gradients: tuple[Tensor, ...], scratch: Scratch, out: Tensor
) -> None:
    r"""Write the gradient (b, K, c) of the logits ``z`` (b, K, c) to ``out``, for voxels with any label sets.

    For a set A of several classes, each class j in A has the extra term :math:`-u p_j t_j - w p_j / p(A)`. For a set of
    one class, see :func:`_gradient_of_classes`, also for the symbols.
    """
    likelihood, overlap, predicted = sum_gradients
    powers = _shifted(z, scratch).exp_()
    norm = powers.sum(1, keepdim=True)
    members = look_up_heads(tables.members, voxels.codes, out=scratch.get("members", z.shape))
    inside = torch.mul(members, powers, out=scratch.get("inside", z.shape))
    mass = inside.sum(1, keepdim=True)
    underflowed = _underflowed(mass) if is_on_cpu(z) else mass < TINY
    lost = None if underflowed is None or not is_on_cpu(z) else _underflowed_logits(z, members, underflowed)
    everywhere = None if is_on_cpu(z) else torch.where(mass < TINY, _inside(z, members).softmax(1), 0)
    share = voxels.share(norm)
    rows = scratch.get("rows", (len(z), 2, z.shape[2]))
    single = torch.mul(share, look_up(tables.is_single, voxels.codes)[:, None], out=rows[:, :1])
    several = share - single
    dots = (overlap[:, None] @ inside).add_(predicted[:, None] @ powers).mul_(single)
    # Undecided classes are removed before multiplying, so that large gradients leave no rounding errors there.
    dots.addcmul_(predicted[:, None] @ torch.sub(powers, inside, out=inside), several)
    cost_weight = (likelihood if voxels.cost_weight is None else voxels.cost_weight * likelihood).expand_as(mass)
    torch.div(cost_weight, mass if underflowed is None else mass.masked_fill(underflowed, torch.inf), out=rows[:, 1:])
    columns = torch.stack([overlap, -torch.ones_like(overlap)], 2)  # (b, K, 2)
    factor = torch.bmm(columns, rows, out=inside).mul_(members)
    factor.addcmul_(predicted[..., None], torch.addcmul(share, members, several, value=-1, out=members))
    torch.mul(powers, factor.add_((cost_weight - dots).div_(norm)), out=out)
    if lost is not None:
        sample, voxel, chosen = lost
        out[sample, :, voxel] -= chosen.softmax(1) * cost_weight[sample, 0, voxel][:, None]
    if everywhere is not None:
        out -= (everywhere * cost_weight).to(out.dtype)


def _underflowed(mass: Tensor) -> Tensor | None:
    """Return a mask (b, 1, c) of the voxels whose set's power, ``mass`` (b, 1, c), has underflowed; None if none has.

    For the CPU: elsewhere the question would wait for the device.
    """
    return mass < TINY if mass.numel() and mass.amin() < TINY else None


def _inside(z: Tensor, members: Tensor) -> Tensor:
    """Return the logits (b, K, c) of voxels, -inf for classes outside the voxel's set."""
    return z.masked_fill(members == 0, -torch.inf)


def _underflowed_logits(z: Tensor, members: Tensor, underflowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return samples (M,), voxels (M,) and logits (M, K) of the voxels in the mask ``underflowed`` (b, 1, c).

    Logits are -inf for classes outside the voxel's set. ``z`` and ``members`` are (b, K, c).
    """
    sample, _, voxel = underflowed.nonzero(as_tuple=True)
    return sample, voxel, _inside(z[sample, :, voxel], members[sample, :, voxel])
