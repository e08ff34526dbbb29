"""What is inferred: it never touches what was drawn, weighs what the rules say, and steps back where it does harm."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from autoseg.core.errors import ConfigError
from autoseg.dataset.labels import CaseStatement, Head, Labels
from autoseg.nn.losses.label_sets import LabelSetLoss
from autoseg.sampling.loader import Batch
from autoseg.training.config import TrainingConfig
from autoseg.training.evidence.background_prior import LARGEST_MASS, N_RINGS, Totals, Unannotated
from autoseg.training.evidence.source import EvidenceLoss, drawn_evidence
from autoseg.training.evidence.teacher import Teacher

K, UNKNOWN = 3, 3
CPU = torch.device("cpu")
TOTALS = Totals(n_drawn=200, n_promised=1000, n_unknown=10_000, n_open=10_000, drawn_as=(100, 60, 40))
SETS = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=torch.bool)
"""The classes, unknown, a lazy set, and unknown that a promise settles."""
INFERRED = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 1], [1, 0, 0]], dtype=torch.bool)


def labels(statements: dict | None = None, *, regions: bool = False) -> Labels:
    heads = tuple(Head(name, (k,), (k,), is_background=k == 0) for k, name in enumerate(("background", "a", "b")))
    if regions:
        heads = (Head("ab", (1, 2), (1, 2)), Head("b", (2,), (2,)))
    return Labels(
        (0, 1, 2), ("background", "a", "b"), heads, paint_values=(1, 2) if regions else None, ignore=3,
        statements=statements or {},
    )  # fmt: skip


def batch(codes: torch.Tensor, *, inferred: bool = False, held: torch.Tensor | None = None, name: str = "x") -> Batch:
    n = len(codes)
    tables = SETS.expand(n, -1, -1)
    return Batch(
        images=torch.zeros(n, 1, *codes.shape[1:]), codes=codes, label_sets=tables, cases=(name,) * n,
        inferred_sets=INFERRED.expand(n, -1, -1) if inferred else None, held_sets=held,
        rings=torch.tensor([-1, -1, -1, 1, -1, -1]).expand(n, -1),
    )  # fmt: skip


def make(config: TrainingConfig, statements: dict | None = None, totals: Totals = TOTALS) -> Unannotated:
    return Unannotated(config, labels(statements), totals, CPU)


def no_prediction(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    raise ValueError("nobody should ask")


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 4, 6, 5)], ids=["2d", "3d"])
def test_with_everything_off_the_loss_is_that_of_what_was_drawn(shape):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 6, shape, generator=generator)
    logits = torch.randn(shape[0], K, *shape[1:], generator=generator)
    loss = EvidenceLoss(LabelSetLoss(None, False), None, UNKNOWN)
    plain = LabelSetLoss(None, False)(logits, codes, SETS.expand(shape[0], -1, -1))
    assert torch.equal(loss([logits], drawn_evidence(batch(codes))), plain)
    off = make(TrainingConfig(promise_weight=0)).evidence(batch(codes, inferred=True), 0, no_prediction)
    torch.testing.assert_close(loss([logits], off), plain)


def test_inferred_evidence_changes_nothing_of_what_was_drawn():
    config = TrainingConfig(background_prior=0.5, promise_weight=2.5)
    evidence = make(config).evidence(batch(torch.zeros(1, 4, 4, dtype=torch.long), inferred=True), 0, no_prediction)
    drawn = [0, 1, 2, 4]
    assert torch.equal(evidence.sets[:, drawn], SETS[None, drawn])
    assert (evidence.weights[:, drawn] == 1).all()


def test_a_promise_weighs_as_much_as_it_may_against_all_that_was_drawn():
    # 2.5 x 200 drawn voxels spread over 1000 promised ones
    evidence = make(TrainingConfig(promise_weight=2.5)).evidence(
        batch(torch.zeros(1, 2, 2).long(), inferred=True), 0, no_prediction
    )
    assert evidence.weights[0].tolist() == [1, 1, 1, 0, 1, 0.5]
    few = replace(TOTALS, n_promised=10)
    assert make(TrainingConfig(promise_weight=2.5), totals=few).promise_weight == 1  # never more than what was drawn


def predicted(unknown: list[list[float]], hits: list[float], alarms: list[float], **settings) -> Unannotated:
    """What follows from mean predictions, of rings 0, 1 .. on unknown voxels and on held-out ones."""
    inferred = make(TrainingConfig(background_prior=0.5, **settings))
    for ring, means in enumerate(unknown):
        inferred.unknown[0, ring] = 10 * torch.tensor(means)
        inferred.unknown[1, ring] = 10
    inferred.held.copy_(torch.stack([10 * torch.tensor(hits), torch.full((3,), 10.0)] * 1 + [
        10 * torch.tensor(alarms), torch.full((3,), 10.0)]))  # fmt: skip
    return inferred


def test_the_rate_follows_from_shares_by_hand():
    at_first = make(TrainingConfig(background_prior=0.5)).background_rates()  # nothing was predicted yet
    torch.testing.assert_close(at_first, torch.full((N_RINGS,), LARGEST_MASS * 200 / 11_000))
    inferred = predicted([[0.8, 0.2, 0.1], [0.98, 0.11, 0.1]], [0.9, 0.9, 0.6], [0.1, 0.1, 0.1])
    torch.testing.assert_close(inferred.shares()[0], torch.tensor([0.7 / 0.8, 0.1 / 0.8, 0.0]))
    # class a: 0.5 * 60 / (0.125 * 10000), and a tenth of that share farther out; class b has no share, hence no bound
    rates = inferred.background_rates()
    torch.testing.assert_close(rates[:2], torch.tensor([0.75 * 0.5 * 60 / 1250, 0.975 * 0.5 * 60 / 125]))
    inferred.held[0, 1] = 2.0  # hits of class a: 0.2, below the third of chance, so the gate is 0.6 squared
    inferred.unknown[0, 0, 1] = 1.1  # its share: (0.11 - 0.1) / (0.2 - 0.1)
    torch.testing.assert_close(inferred.background_rates()[0], 0.36 * 0.8 * torch.tensor(0.5 * 60 / 1000))
    assert (rates[2:] == rates[1]).all() and len(rates) == N_RINGS  # no voxel lies farther out: as nearer


def test_no_class_is_taken_to_be_more_common_farther_away():
    inferred = predicted([[0.8, 0.2, 0.0], [0.98, 0.11, 0.0], [0.0, 0.9, 0.9]], [0.9, 0.9, 0.9], [0.1, 0.1, 0.1])
    torch.testing.assert_close(inferred.shares()[:3, 1:], torch.tensor([[0.125, 0.0], [0.0125, 0.0], [0.0125, 0.0]]))

    inferred.unknown[:, 0] = 0  # no voxel lies so near
    torch.testing.assert_close(inferred.shares()[:3, 1:], torch.tensor([[0.0, 0.0], [0.0125, 0.0], [0.0125, 0.0]]))


def test_the_prior_leaves_alone_what_is_common_and_what_it_has_begun_to_eat():
    common = predicted([[0.5, 0.5, 0.0]] * N_RINGS, [0.9, 0.9, 0.9], [0.1, 0.1, 0.1])
    assert not common.background_rates().any()  # a is half of the image
    eaten = predicted([[0.999, 0.001, 0.0]] * N_RINGS, [0.99, 0.001, 0.5], [0.01, 0.001, 0.005])
    assert (eaten.background_rates() < 1e-4).all()  # a is found no more, neither here nor there


def test_the_prior_spares_cases_whose_classes_were_only_partly_annotated():
    config = TrainingConfig(background_prior=0.5)
    said = {"lazy": CaseStatement(frozenset({1})), "healthy": CaseStatement(None, frozenset({2}))}
    inferred = make(config, said)
    codes = torch.zeros(1, 2, 2, dtype=torch.long)
    assert inferred.evidence(batch(codes, name="lazy"), 0, no_prediction).weights[0, UNKNOWN] == 0
    assert inferred.evidence(batch(codes, name="healthy"), 0, no_prediction).weights[0, UNKNOWN] > 0


def test_what_is_absent_from_a_whole_case_does_not_drown_what_was_drawn():
    said = {"healthy": CaseStatement(None, frozenset({2}))}
    codes = torch.zeros(1, 2, 2, dtype=torch.long)
    table = torch.cat([SETS, torch.tensor([[True, True, False]])])[None]
    one = replace(batch(codes, name="healthy"), label_sets=table)
    assert make(TrainingConfig(promise_weight=2.5), said).evidence(one, 0, no_prediction).weights[0, 6] == 0.5
    other = replace(one, cases=("x",))  # the same set in a case where it was drawn
    assert make(TrainingConfig(promise_weight=2.5), said).evidence(other, 0, no_prediction).weights[0, 6] == 1


def held_table() -> torch.Tensor:
    """Code 5 is held-out annotation of class a."""
    table = torch.ones(1, 6, K, dtype=torch.bool)
    table[0, 5] = torch.tensor([0, 1, 0], dtype=torch.bool)
    return table


def test_statistics_count_unknown_and_held_out_voxels_apart():
    inferred = make(TrainingConfig(background_prior=0.5))
    codes = torch.tensor([[[UNKNOWN, UNKNOWN, 5, 0]]])
    logits = torch.tensor([[[0.0, 0, 0, 0], [9, -9, 9, 9], [-9, -9, -9, -9]]])[:, :, None]
    p = logits.softmax(1)[0, :, 0]
    inferred.observe(batch(codes, held=held_table()), logits)
    torch.testing.assert_close(inferred.unknown[0, 1], p[:, 0] + p[:, 1])
    assert inferred.unknown[1, :, 0].tolist() == [0, 2, 0, 0, 0]
    hits, alarms = inferred.held[0::2]
    torch.testing.assert_close(hits, torch.tensor([0, p[1, 2], 0]))
    torch.testing.assert_close(alarms, torch.tensor([p[0, 2], 0, p[2, 2]]))


def network_of(bias: list[float]) -> nn.Module:
    network = nn.Conv2d(1, K, 1)
    nn.init.zeros_(network.weight)
    network.bias.data = torch.tensor(bias)
    return network


def taught_by(bias: list[float], batch: Batch, **settings) -> torch.Tensor | None:
    config = TrainingConfig(iterations=10, teacher_weight=1, **settings)
    teacher = Teacher(config, labels(), touches_all=False)
    teacher.follow(network_of(bias))
    teacher.claims += torch.tensor([[100.0], [99.0]])
    return teacher.teach(batch, 5, lambda network, images: network(images))


def test_the_teacher_never_speaks_of_single_classes_and_stays_inside_the_set():
    codes = torch.tensor([[[0, 1, 2, 3, 4, 5]]])
    sure_of_a = taught_by([0.0, 9.0, 0.0], batch(codes))
    assert sure_of_a[0, 0].tolist() == [K, K, K, 1, K, 1]  # within {background, b} nothing is certain
    sure_of_b = taught_by([0.0, 0.0, 9.0], batch(codes, inferred=True))
    assert sure_of_b[0, 0].tolist() == [K, K, K, 2, 2, K]  # code 5 is settled by a promise


def test_the_teacher_is_silent_when_unsure_early_or_not_known_to_be_right():
    codes = torch.tensor([[[3, 3]]])
    assert (taught_by([0.0, 1.0, 0.0], batch(codes)) == K).all()
    assert taught_by([0.0, 9.0, 0.0], batch(codes), teacher_start=0.6) is None
    config = TrainingConfig(iterations=10, teacher_weight=1)
    for claims in ([[100.0], [80.0]], [[10.0], [10.0]]):  # often wrong; hardly ever asked
        teacher = Teacher(config, labels(), touches_all=False)
        teacher.follow(network_of([0.0, 9.0, 0.0]))
        teacher.claims += torch.tensor(claims)
        assert (teacher.teach(batch(codes), 5, lambda network, images: network(images)) == K).all()


def test_held_out_annotation_decides_which_class_is_believed():
    codes = torch.full((1, 8, 8), 5)
    for bias, believed in (([0.0, 9.0, 0.0], [False, True, False]), ([0.0, 0.0, 9.0], [False, False, False])):
        teacher = Teacher(TrainingConfig(iterations=10, teacher_weight=1), labels(), touches_all=False)
        teacher.follow(network_of(bias))
        teacher.teach(batch(codes, held=held_table()), 5, lambda network, images: network(images))
        assert teacher.believed().tolist() == believed


def test_the_teacher_is_the_mean_of_past_weights():
    teacher = Teacher(TrainingConfig(teacher_weight=1, teacher_decay=0.75), labels(), touches_all=False)
    for value in (0.0, 4.0, 4.0):
        teacher.follow(network_of([value, 0.0, 0.0]))
    torch.testing.assert_close(teacher.network.bias[0], torch.tensor(1.75))


def test_an_untouched_object_is_not_what_it_is_taken_for():
    class Blob(nn.Module):
        def forward(self, images):
            logits = torch.zeros(len(images), K, *images.shape[2:])
            logits[:, 0], logits[:, 1, 3:6, 3:6], logits[:, 1, 8:10, 8:10] = 2, 9, 9
            return logits

    codes = torch.full((1, 12, 12), UNKNOWN)
    codes[0, 4, 4] = 1
    teacher = Teacher(TrainingConfig(iterations=10, teacher_weight=1), labels(), touches_all=True)
    teacher.follow(Blob())
    taught = teacher.teach(batch(codes), 5, lambda network, images: network(images))
    assert (taught[0, 8:10, 8:10] == K + 2).all()  # "not a"
    assert (taught[0] == K + 2).sum() == 4
    assert teacher.table(CPU)[K + 2].tolist() == [True, False, True]


def test_the_teacher_says_nothing_of_untouched_objects_of_classes_that_nobody_looked_for():
    class Everywhere(nn.Module):
        def forward(self, images):
            logits = torch.zeros(len(images), K, *images.shape[2:])
            logits[:, 0], logits[:, 1, 3:6, 3:6], logits[:, 2, 8:10, 8:10] = 2, 9, 9
            return logits

    codes = torch.full((1, 12, 12), UNKNOWN)
    for annotated, said in ((None, {K + 2, K + 3}), ({1}, {K + 2}), ({2}, {K + 3}), (set(), set())):
        statement = CaseStatement(annotated=None if annotated is None else frozenset(annotated))
        teacher = Teacher(TrainingConfig(iterations=10, teacher_weight=1), labels({"x": statement}), touches_all=True)
        teacher.follow(Everywhere())
        taught = teacher.teach(batch(codes), 5, lambda network, images: network(images))
        assert set(taught.unique().tolist()) == {K, *said}


def test_a_drawn_set_touches_an_object_in_a_patch():
    class Blob(nn.Module):
        def forward(self, images):
            logits = torch.zeros(len(images), K, *images.shape[2:])
            logits[:, 0], logits[:, 2, 3:6, 3:6] = 2, 9
            return logits

    codes = torch.full((1, 12, 12), UNKNOWN)
    codes[0, 4, 4] = 4  # background or b
    teacher = Teacher(TrainingConfig(iterations=10, teacher_weight=1), labels(), touches_all=True)
    teacher.follow(Blob())
    assert (teacher.teach(batch(codes), 5, lambda network, images: network(images)) == K).all()


def test_what_is_taught_enters_the_loss_and_replaces_the_prior():
    config = TrainingConfig(iterations=10, teacher_weight=1, teacher_start=0, background_prior=0.5)
    inferred = make(config)
    inferred.follow(network_of([0.0, 9.0, 0.0]))
    inferred.teacher.claims += torch.tensor([[100.0], [99.0]])
    codes = torch.tensor([[[3, 0], [2, 4]]])
    evidence = inferred.evidence(batch(codes), 5, lambda network, images: network(images))
    assert evidence.codes[0].tolist() == [[6, 0], [2, 4]]
    assert evidence.weights[0, 6] == 0
    logits = torch.zeros(1, K, 2, 2, requires_grad=True)
    sets = inferred.teacher.table(CPU)
    loss = EvidenceLoss(LabelSetLoss(None, False), None, UNKNOWN, sets, 1.0)([logits], evidence)
    loss.backward()
    assert logits.grad[0, 1, 0, 0] < 0 < logits.grad[0, 0, 0, 0]  # towards class a, away from background


def test_a_teacher_of_regions_is_refused():
    with pytest.raises(ConfigError, match=r"teacher_weight=1.*found regions, expected classes"):
        Unannotated(TrainingConfig(teacher_weight=1), labels(regions=True), TOTALS, CPU)


def test_state_survives_a_resumed_run():
    config = TrainingConfig(iterations=10, teacher_weight=1, background_prior=0.5)
    one, other = make(config), make(config)
    one.follow(network_of([1.0, 2.0, 3.0]))
    one.unknown.uniform_()
    one.held.uniform_()
    one.teacher.claims.uniform_()
    other.restore(one.state(), network_of([0.0, 0.0, 0.0]))
    assert torch.equal(one.unknown, other.unknown) and torch.equal(one.held, other.held)
    assert torch.equal(one.teacher.claims, other.teacher.claims)
    assert torch.equal(other.teacher.network.bias, torch.tensor([1.0, 2.0, 3.0]))


def test_where_a_class_is_absent_the_prior_speaks_if_it_says_more():
    """Voxels that nobody drew in a case without class 1: background by the prior, or "not 1", whichever weighs more."""
    statements = {"x": CaseStatement(absent=frozenset({1}))}
    codes = torch.full((1, 4, 4), 4)
    of_batch = replace(batch(codes), rings=torch.tensor([[-1, -1, -1, -1, 1, -1]]))
    for promise_weight, expected in ((0.0, [True, False, False]), (50.0, [True, False, True])):
        config = TrainingConfig(background_prior=0.5, promise_weight=promise_weight)
        made = make(config, statements, replace(TOTALS, n_promised=10_000, n_unknown=0))
        evidence = made.evidence(of_batch, 0, no_prediction)
        assert evidence.sets[0, 4].tolist() == expected
        assert evidence.weights[0, 4] == max(float(made.background_rates()[1]), made.promise_weight)
