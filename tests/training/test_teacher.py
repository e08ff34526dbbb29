"""The teacher: silent on single classes, confined to the learnt set, believed where held-out annotation confirms it."""

from __future__ import annotations

import pytest
import torch
from evidence_examples import CPU, TOTALS, UNKNOWN, K, batch, labels, network_of, speaking
from torch import nn

from autoseg.core.errors import ConfigError
from autoseg.dataset.labels import CaseStatement
from autoseg.nn.losses.label_sets import LabelSetLoss
from autoseg.sampling.batch import Batch
from autoseg.training.config import TrainingConfig
from autoseg.training.evidence.background_prior import BackgroundPrior
from autoseg.training.evidence.drawn import drawn_evidence
from autoseg.training.evidence.loss import EvidenceLoss
from autoseg.training.evidence.teacher import Teacher


def taught_by(bias: list[float], one: Batch, **settings) -> torch.Tensor | None:
    config = TrainingConfig(iterations=10, teacher_weight=1, **settings)
    teacher = Teacher(config, labels(), touches_all=False)
    teacher.follow(network_of(bias))
    teacher.claims += torch.tensor([[100.0], [99.0]])
    return teacher.teach(one, speaking(5))


def test_the_teacher_never_speaks_of_single_classes_and_stays_inside_the_set():
    codes = torch.tensor([[[0, 1, 2, 3, 4, 5]]])
    sure_of_a = taught_by([0.0, 9.0, 0.0], batch(codes))
    assert sure_of_a[0, 0].tolist() == [K, K, K, 1, K, 1]  # within {background, b} nothing is certain
    sure_of_b = taught_by([0.0, 0.0, 9.0], batch(codes, promised=True))
    assert sure_of_b[0, 0].tolist() == [K, K, K, 2, 2, K]  # code 5 is settled by a promise


def test_the_teacher_predicts_without_dropout_and_with_the_statistics_of_its_pupil():
    pupil = nn.Sequential(nn.Conv2d(1, K, 1), nn.Dropout2d(0.5), nn.BatchNorm2d(K)).train()
    teacher = Teacher(TrainingConfig(iterations=10, teacher_weight=1), labels(), touches_all=False)
    teacher.follow(pupil)
    pupil(torch.randn(4, 1, 8, 8))
    teacher.follow(pupil)
    assert teacher.network is not None and not any(module.training for module in teacher.network.modules())
    assert all(map(torch.equal, teacher.network.buffers(), pupil.buffers()))
    restored = Teacher(TrainingConfig(iterations=10, teacher_weight=1), labels(), touches_all=False)
    restored.restore(teacher.state(), pupil)
    assert restored.network is not None and not restored.network.training


def test_the_teacher_is_silent_when_unsure_early_or_not_known_to_be_right():
    codes = torch.tensor([[[3, 3]]])
    assert (taught_by([0.0, 1.0, 0.0], batch(codes)) == K).all()
    assert taught_by([0.0, 9.0, 0.0], batch(codes), teacher_start=0.6) is None
    config = TrainingConfig(iterations=10, teacher_weight=1)
    for claims in ([[100.0], [80.0]], [[10.0], [10.0]]):  # often wrong; hardly ever asked
        teacher = Teacher(config, labels(), touches_all=False)
        teacher.follow(network_of([0.0, 9.0, 0.0]))
        teacher.claims += torch.tensor(claims)
        assert (teacher.teach(batch(codes), speaking(5)) == K).all()


def test_held_out_annotation_decides_which_class_is_believed():
    codes = torch.full((1, 8, 8), 5)
    for bias, believed in (([0.0, 9.0, 0.0], [False, True, False]), ([0.0, 0.0, 9.0], [False, False, False])):
        teacher = Teacher(TrainingConfig(iterations=10, teacher_weight=1), labels(), touches_all=False)
        teacher.follow(network_of(bias))
        teacher.teach(batch(codes, held_out=True), speaking(5))
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
    taught = teacher.teach(batch(codes), speaking(5))
    assert (taught[0, 8:10, 8:10] == K + 2).all()  # "not a"
    assert (taught[0] == K + 2).sum() == 4
    assert teacher.label_sets(CPU)[K + 2].tolist() == [True, False, True]


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
        taught = teacher.teach(batch(codes), speaking(5))
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
    assert (teacher.teach(batch(codes), speaking(5)) == K).all()


@pytest.mark.parametrize("has_prior", [True, False], ids=["prior before it", "alone"])
def test_what_is_taught_enters_the_loss_and_replaces_the_prior(has_prior):
    teacher = Teacher(TrainingConfig(iterations=10, teacher_weight=1, teacher_start=0), labels(), touches_all=False)
    teacher.follow(network_of([0.0, 9.0, 0.0]))
    teacher.claims += torch.tensor([[100.0], [99.0]])
    one = batch(torch.tensor([[[3, 0], [2, 4]]]))
    evidence = drawn_evidence(one)
    for source in ([BackgroundPrior(0.5, labels(), TOTALS, CPU)] if has_prior else []) + [teacher]:
        evidence = source.adjust(evidence, one, speaking(5))
    assert evidence.codes[0].tolist() == [[6, 0], [2, 4]]
    assert evidence.weights[0, 6] == 0 and evidence.table.drawn.shape[1] == 7
    logits = torch.zeros(1, K, 2, 2, requires_grad=True)
    EvidenceLoss(LabelSetLoss(None, False), None, UNKNOWN)([logits], evidence).backward()
    assert logits.grad[0, 1, 0, 0] < 0 < logits.grad[0, 0, 0, 0]  # towards class a, away from background


def test_a_teacher_of_regions_is_refused():
    with pytest.raises(ConfigError, match=r"teacher_weight=1.*regions"):
        Teacher(TrainingConfig(teacher_weight=1), labels(regions=True), touches_all=False)


def test_state_survives_a_resumed_run():
    config = TrainingConfig(iterations=10, teacher_weight=1)
    one, other = (Teacher(config, labels(), touches_all=False) for _ in range(2))
    one.follow(network_of([1.0, 2.0, 3.0]))
    one.claims.uniform_()
    other.restore(one.state(), network_of([0.0, 0.0, 0.0]))
    assert torch.equal(one.claims, other.claims)
    assert torch.equal(other.network.bias, torch.tensor([1.0, 2.0, 3.0]))
