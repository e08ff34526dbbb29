"""Evidence: never of annotated voxels, weighed as the rules say; with all of it off, the annotation alone is learnt."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from evidence_examples import CPU, SETS, TOTALS, UNKNOWN, K, batch, labels, silent, table

from autoseg.cases.code_table import CodeTable
from autoseg.dataset.labels import CaseStatement, settled_cases
from autoseg.nn.losses.label_sets import LabelSetLoss
from autoseg.sampling.batch import Batch
from autoseg.training.evidence.background_prior import BackgroundPrior
from autoseg.training.evidence.drawn import drawn_evidence
from autoseg.training.evidence.loss import EvidenceLoss
from autoseg.training.evidence.promises import Promises
from autoseg.training.evidence.source import Evidence, Term
from autoseg.training.evidence.totals import Totals


def promised(one: Batch, weight: float = 2.5, totals: Totals = TOTALS) -> Evidence:
    return Promises(weight, totals).adjust(drawn_evidence(one), one, silent())


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 4, 6, 5)], ids=["2d", "3d"])
def test_with_everything_off_the_loss_is_that_of_the_annotation(shape):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 6, shape, generator=generator)
    logits = torch.randn(shape[0], K, *shape[1:], generator=generator)
    loss = EvidenceLoss(LabelSetLoss(None, False), None, UNKNOWN)
    plain = LabelSetLoss(None, False)(logits, codes, SETS.expand(shape[0], -1, -1))
    assert torch.equal(loss([logits], drawn_evidence(batch(codes, promised=True))), plain)
    torch.testing.assert_close(loss([logits], promised(batch(codes, promised=True), weight=0)), plain)


def test_held_out_annotation_is_not_learnt():
    codes = torch.full((1, 2, 2), 5)
    for evidence in (drawn_evidence(batch(codes, held_out=True)), promised(batch(codes, held_out=True))):
        logits = torch.zeros(1, K, 2, 2, requires_grad=True)
        EvidenceLoss(LabelSetLoss(None, False), None, UNKNOWN)([logits], evidence).backward()
        assert not logits.grad.any()


@pytest.mark.parametrize("scales", [None, [(1, 1), (2, 2)]], ids=["one output", "two outputs"])
def test_a_further_term_adds_its_weight_times_its_loss_at_full_resolution(scales):
    codes, taught = torch.tensor([[[3, 0], [2, 4]]]), torch.tensor([[[1, 1], [0, 0]]])
    logits = [torch.randn(1, K, 2, 2), torch.randn(1, K, 1, 1)]
    partial = LabelSetLoss(None, False)
    loss, plain = EvidenceLoss(partial, scales, UNKNOWN), drawn_evidence(batch(codes))
    sets = torch.eye(K, dtype=torch.bool)
    found = loss(logits, plain._replace(terms=(Term(taught, sets, 0.3),))) - loss(logits, plain)
    torch.testing.assert_close(found, 0.3 * partial(logits[0], taught, sets[None]))


def test_inferred_evidence_changes_nothing_of_the_annotation():
    one = batch(torch.zeros(1, 4, 4, dtype=torch.long), promised=True)
    evidence = BackgroundPrior(0.5, labels(), TOTALS, CPU).adjust(promised(one), one, silent())
    drawn = [0, 1, 2, 4]
    assert torch.equal(evidence.table.learnt[:, drawn], SETS[None, drawn])
    assert (evidence.weights[:, drawn] == 1).all()


def test_a_promise_weighs_as_much_as_it_may_against_all_annotation():
    # 2.5 x 200 annotated voxels spread over 1000 promised ones
    assert promised(batch(torch.zeros(1, 2, 2).long(), promised=True)).weights[0].tolist() == [1, 1, 1, 0, 1, 0.5]
    few = replace(TOTALS, n_promised=10)
    assert Promises(2.5, few).weight == 1  # never more than what was annotated


def test_what_is_absent_from_a_whole_case_does_not_drown_the_annotation():
    codes = torch.zeros(1, 2, 2, dtype=torch.long)
    healthy = table(1, drawn=torch.cat([SETS, torch.tensor([[True, True, False]])]))
    absent = healthy._replace(undrawn=torch.tensor([6]))  # the set of its unannotated voxels: "not class 2"
    assert promised(replace(batch(codes), table=absent)).weights[0, 6] == 0.5
    assert promised(replace(batch(codes), table=healthy)).weights[0, 6] == 1  # the same set, annotated


def test_a_statement_that_leaves_one_class_weighs_as_a_promise():
    """Otherwise all voxels of a healthy case would count as much as voxels that were drawn by hand."""
    codes = torch.zeros(1, 2, 2, dtype=torch.long)
    healthy = {"healthy": CaseStatement(absent=frozenset({1, 2}))}
    settled = settled_cases(labels({**healthy, "x": CaseStatement(absent=frozenset({1}))}))
    assert settled == {"healthy"}
    source = Promises(2.5, TOTALS, settled)
    for name, weight in (("healthy", 0.5), ("x", 1)):
        one = batch(codes, name=name)
        assert source.adjust(drawn_evidence(one), one, silent()).weights[0, 0] == weight
    codes = CodeTable.of_sets(SETS[:4].numpy(), SETS[:4].numpy(), UNKNOWN)
    stated = SimpleNamespace(table=codes, code_counts={0: 7}, record=SimpleNamespace(case="healthy"))
    totals = Totals.of([stated], labels(healthy))
    assert (totals.n_drawn, totals.n_promised, totals.n_open) == (0, 7, 7)
