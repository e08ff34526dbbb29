"""The sums over voxels that the losses of a softmax are made of: one pass over the logits, one more for the gradient.

Nothing of the size of the logits is kept between the two: the backward pass computes the probabilities anew, block by
block in the cache, which costs less than to write them to memory and to read them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from autoseg.nn.losses.code_tables import check_shapes, informative_codes, look_up, look_up_heads
from autoseg.nn.losses.voxel_blocks import Block, LossSums, Scratch, blocks, count_codes, is_cheap_to_ask, sum_by_index

TINY = 1e-30
"""Sum of the powers of a set, the largest power of all classes being 1, below which float32 has rounded it down."""
FEW = 0.3
"""Share of informative voxels in a block below which they are picked out, instead of the others weighing 0."""


class _Tables(NamedTuple):
    """What each code means."""

    own: Tensor | None
    """(B, N) int64: the class of a code of one class, else 0. None: every voxel's code is its class."""
    weights: Tensor | None
    """(B, N): 1 for informative codes, else 0. None: every voxel is informative."""
    class_weights: Tensor | None
    """(B, N): class weights of the codes. None: all 1."""
    is_single: Tensor
    """(B, N): 1 for codes of one class, else 0."""
    members: Tensor
    """(B, N, K): 1 for the classes of a code; all 1 for an uninformative one."""
    has_sets: Tensor
    """(B,) bool, on the CPU: samples that may have voxels of several classes."""

    def of(self, samples: slice) -> _Tables:
        """Return the tables of some samples."""
        return _Tables(*(None if table is None else table[samples] for table in self))  # type: ignore[arg-type]


def softmax_sums(
    logits: Tensor,
    codes: Tensor,
    label_sets: Tensor,
    class_weights: Tensor | None = None,
    voxel_weights: Tensor | None = None,
) -> LossSums:
    """Sum what cross entropy and Dice of a softmax over classes need; differentiable in the logits.

    Parameters
    ----------
    logits
        (B, K, *P), any floating type. Sums are float32, those of float64 logits float64.
    codes
        (B, *P) integers < N.
    label_sets
        (B, N, K) bool, on the CPU or on the device of the logits.
    class_weights
        (K,), multiplied into the likelihood; a set weighs the mean of its members. None: all 1.
    voxel_weights
        (B, *P) non-negative, multiplied into every sum. None: all 1.

    Returns
    -------
    LossSums
        Of H = K heads.
    """
    check_shapes(logits, codes, label_sets)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    sets = label_sets.to(logits.device, non_blocking=True)
    voxels = codes.flatten(1)
    evidence = None if voxel_weights is None else voxel_weights.detach().flatten(1).to(dtype)
    occurrences = count_codes(voxels, sets.shape[1]).to(dtype)
    counts = occurrences if evidence is None else count_codes(voxels, sets.shape[1], evidence).to(dtype)
    code_weights = None if class_weights is None else _mean_weight(sets, class_weights.to(logits.device, dtype))
    tables = _tables(label_sets, sets, occurrences, code_weights)
    likelihood, overlap, predicted = _SoftmaxSums.apply(  # type: ignore[no-untyped-call]
        logits.flatten(2), voxels, evidence, *tables
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
    """(B, N): mean weight of the members of each set, 0 for an empty one."""
    return (sets * weights).sum(2) / sets.sum(2).clamp_min(1)


def _tables(label_sets: Tensor, sets: Tensor, occurrences: Tensor, code_weights: Tensor | None) -> _Tables:
    """``label_sets`` is the caller's table, which can be asked without waiting for a device if it is on the CPU."""
    informative, size = informative_codes(label_sets), label_sets.sum(2)
    is_single, is_set = informative & (size == 1), informative & (size > 1)
    own = torch.where(is_single, label_sets.to(torch.uint8).argmax(2), 0)
    is_complete = is_class = False
    device = occurrences.device
    if is_cheap_to_ask(occurrences) and is_cheap_to_ask(label_sets):
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
        has_sets=is_set.any(1).cpu(),
    )


class _Voxels(NamedTuple):
    """What the codes of c voxels of b samples say."""

    codes: Tensor
    """(b, c) int64."""
    weight: Tensor | None
    """(b, 1, c): how much a voxel counts, 0 for uninformative ones. None: all 1."""
    pull: Tensor | None
    """(b, 1, c): the same times the class weight. None: all 1."""
    chosen: Tensor | None
    """(c,) int64: where these voxels lie in the block. None: they are the block."""

    @classmethod
    def read(cls, codes: Tensor, evidence: Tensor | None, tables: _Tables) -> _Voxels:
        """Look up the codes of a block in its tables; pick out the informative voxels if they are few (on CPUs)."""
        numbers = codes.long()
        weight = None if tables.weights is None else look_up(tables.weights, numbers)
        chosen = None
        if weight is not None and is_cheap_to_ask(weight) and len(weight) == 1 and weight.sum() <= FEW * weight.numel():
            chosen = weight[0].nonzero()[:, 0]
            numbers, weight = numbers[:, chosen], None
            evidence = None if evidence is None else evidence[:, chosen]
        if evidence is not None:
            weight = evidence if weight is None else weight * evidence
        pull = weight
        if tables.class_weights is not None:
            pull = look_up(tables.class_weights, numbers)
            pull = pull if weight is None else pull * weight
        return cls(
            codes=numbers,
            weight=None if weight is None else weight[:, None],
            pull=None if pull is None else pull[:, None],
            chosen=chosen,
        )

    def own(self, tables: _Tables) -> Tensor:
        """(b, 1, c) int64: the class of a voxel of one class, else 0."""
        return (self.codes if tables.own is None else look_up(tables.own, self.codes))[:, None]

    def pick(self, scores: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the logits (b, K, c) of these voxels, of those of the block."""
        if self.chosen is not None:
            scores = scores.gather(2, self.chosen.expand(1, scores.shape[1], -1))
        return scores.to(dtype)

    def share(self, norm: Tensor) -> Tensor:
        """(b, 1, c): weight over the sum of the powers."""
        return norm.reciprocal() if self.weight is None else self.weight / norm


class _SoftmaxSums(torch.autograd.Function):
    """Likelihood (), overlap and predicted (B, K). Powers are exp(z - max z) of the logits z of a voxel."""

    @staticmethod
    def forward(
        context: Any, scores: Tensor, codes: Tensor, evidence: Tensor | None, *fields: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        context.save_for_backward(scores, codes, evidence, *fields)
        tables = _Tables(*fields)  # type: ignore[arg-type]
        likelihood = tables.members.new_zeros(())
        overlap, predicted = tables.members.new_zeros(2, *scores.shape[:2])
        scratch = Scratch(tables.members)
        with torch.autocast(scores.device.type, enabled=False):
            for block, part, voxels, z in _parts(scores, codes, evidence, tables):
                sums = _sums_of_sets if part.has_sets.any() else _sums_of_classes
                cost, hits, total = sums(z, voxels, part, scratch)
                likelihood += cost
                overlap[block[0]] += hits
                predicted[block[0]] += total
        return likelihood, overlap, predicted

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scores, codes, evidence, *fields = context.saved_tensors
        tables = _Tables(*fields)
        result = torch.empty_like(scores)
        scratch = Scratch(tables.members)
        with torch.autocast(scores.device.type, enabled=False):
            for block, part, voxels, z in _parts(scores, codes, evidence, tables):
                target = result[block[0], :, block[1]]
                is_direct = voxels.chosen is None and z.dtype == target.dtype
                out = target if is_direct else scratch.get("gradient", z.shape)
                wanted = (gradients[0], gradients[1][block[0]], gradients[2][block[0]])
                gradient = _gradient_of_sets if part.has_sets.any() else _gradient_of_classes
                gradient(z, voxels, part, wanted, scratch, out)
                if voxels.chosen is not None:
                    target.zero_().scatter_(2, voxels.chosen.expand_as(out), out.to(target.dtype))
                elif not is_direct:
                    target.copy_(out)
        return result, *(None for _ in range(2 + len(fields)))


def _parts(
    scores: Tensor, codes: Tensor, evidence: Tensor | None, tables: _Tables
) -> Iterator[tuple[Block, _Tables, _Voxels, Tensor]]:
    """Yield each block with its tables, voxels and logits (b, K, c)."""
    for samples, columns in blocks(*scores.shape, on_cpu=is_cheap_to_ask(scores)):
        part = tables.of(samples)
        voxels = _Voxels.read(codes[samples, columns], None if evidence is None else evidence[samples, columns], part)
        yield (samples, columns), part, voxels, voxels.pick(scores[samples, :, columns], tables.members.dtype)


def _shifted(z: Tensor, scratch: Scratch) -> Tensor:
    return torch.sub(z, z.amax(1, keepdim=True), out=scratch.get("powers", z.shape))


def _sums_of_classes(z: Tensor, voxels: _Voxels, tables: _Tables, scratch: Scratch) -> tuple[Tensor, Tensor, Tensor]:
    """Likelihood (), overlap and predicted (b, K) of voxels of one class each, or uninformative."""
    shifted, index = _shifted(z, scratch), voxels.own(tables)
    own = shifted.gather(1, index)  # (b, 1, c)
    powers = shifted.exp_()
    norm = powers.sum(1, keepdim=True)
    share = voxels.share(norm)
    predicted = (share @ powers.mT)[:, 0]
    overlap = sum_by_index((own.exp() * share)[:, 0], index[:, 0], z.shape[1])
    costs = norm.log_().sub_(own)
    return (costs if voxels.pull is None else costs.mul_(voxels.pull)).sum(), overlap, predicted


def _gradient_of_classes(
    z: Tensor, voxels: _Voxels, tables: _Tables, wanted: tuple[Tensor, ...], scratch: Scratch, out: Tensor
) -> None:
    r"""Write the gradient (b, K, c), from those of the sums, ``wanted``.

    It is :math:`p_j [u t_j + w - u \sum_k p_k t_k - u p_{own} o_{own}]` with the weights u of a voxel and w of its
    likelihood, t and o being ``wanted`` of predicted and overlap, and :math:`u p_{own} o_{own} - w` more for the
    voxel's own class.
    """
    likelihood, overlap, predicted = wanted
    powers, index = _shifted(z, scratch).exp_(), voxels.own(tables)
    norm = powers.sum(1, keepdim=True)  # (b, 1, c), like all that follows
    share = voxels.share(norm)
    boost = powers.gather(1, index).mul_(share).mul_(look_up(overlap, index[:, 0])[:, None])
    own = (likelihood if voxels.pull is None else voxels.pull * likelihood) - boost
    common = torch.addcmul(own, share, predicted[:, None] @ powers, value=-1).div_(norm)
    factor = torch.addcmul(common, predicted[..., None], share, out=scratch.get("factor", z.shape))
    torch.mul(powers, factor, out=out).scatter_add_(1, index, own.neg_())


def _sums_of_sets(z: Tensor, voxels: _Voxels, tables: _Tables, scratch: Scratch) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`_sums_of_classes`, of voxels of any label set."""
    powers = _shifted(z, scratch).exp_()
    norm = powers.sum(1, keepdim=True)
    members = look_up_heads(tables.members, voxels.codes, out=scratch.get("members", z.shape))
    inside = torch.mul(members, powers, out=scratch.get("inside", z.shape))
    mass = inside.sum(1, keepdim=True)
    costs = (norm / mass).log_()
    far = _far(mass)
    if far is not None:
        sample, voxel, chosen = _far_logits(z, members, far)
        costs[sample, 0, voxel] = norm[sample, 0, voxel].log() + z[sample, :, voxel].amax(1) - chosen.logsumexp(1)
    share = voxels.share(norm)
    single = share * look_up(tables.is_single, voxels.codes)[:, None]
    overlap = (single @ inside.mT)[:, 0]
    predicted = (single @ powers.mT)[:, 0] + ((share - single) @ torch.sub(powers, inside, out=inside).mT)[:, 0]
    return (costs if voxels.pull is None else costs.mul_(voxels.pull)).sum(), overlap, predicted


def _gradient_of_sets(
    z: Tensor, voxels: _Voxels, tables: _Tables, wanted: tuple[Tensor, ...], scratch: Scratch, out: Tensor
) -> None:
    r"""As :func:`_gradient_of_classes`, of voxels of any label set.

    The members of a set get :math:`-u p_j t_j - w p_j / p(A)` more, where it has several; of one class as above.
    """
    likelihood, overlap, predicted = wanted
    powers = _shifted(z, scratch).exp_()
    norm = powers.sum(1, keepdim=True)
    members = look_up_heads(tables.members, voxels.codes, out=scratch.get("members", z.shape))
    inside = torch.mul(members, powers, out=scratch.get("inside", z.shape))
    mass = inside.sum(1, keepdim=True)
    far = _far(mass)
    lost = None if far is None else _far_logits(z, members, far)
    share = voxels.share(norm)
    rows = scratch.get("rows", (len(z), 2, z.shape[2]))
    single = torch.mul(share, look_up(tables.is_single, voxels.codes)[:, None], out=rows[:, :1])
    several = share - single
    dots = (overlap[:, None] @ inside).add_(predicted[:, None] @ powers).mul_(single)
    # What sets leave open is taken out before multiplying: of large slopes not even rounding errors may be left.
    dots.addcmul_(predicted[:, None] @ torch.sub(powers, inside, out=inside), several)
    pull = (likelihood if voxels.pull is None else voxels.pull * likelihood).expand_as(mass)
    torch.div(pull, mass if far is None else mass.masked_fill(far, torch.inf), out=rows[:, 1:])
    columns = torch.stack([overlap, -torch.ones_like(overlap)], 2)  # (b, K, 2)
    factor = torch.bmm(columns, rows, out=inside).mul_(members)
    factor.addcmul_(predicted[..., None], torch.addcmul(share, members, several, value=-1, out=members))
    torch.mul(powers, factor.add_((pull - dots).div_(norm)), out=out)
    if lost is not None:
        sample, voxel, chosen = lost
        out[sample, :, voxel] -= chosen.softmax(1) * pull[sample, 0, voxel][:, None]


def _far(mass: Tensor) -> Tensor | None:
    """Where sets have lost their powers (b, 1, c), None if nowhere."""
    return mass < TINY if mass.numel() and mass.amin() < TINY else None


def _far_logits(z: Tensor, members: Tensor, far: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where ``far`` (b, 1, c): samples and voxels (M,), and their logits (M, K), -inf outside of the voxel's set."""
    sample, _, voxel = far.nonzero(as_tuple=True)
    return sample, voxel, z[sample, :, voxel].masked_fill(members[sample, :, voxel] == 0, -torch.inf)
