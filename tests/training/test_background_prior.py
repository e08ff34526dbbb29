"""The background prior: its rates follow from estimated shares, and it steps back where it does harm."""

from __future__ import annotations

from dataclasses import replace

import torch
from evidence_examples import CPU, TOTALS, UNKNOWN, batch, labels, silent, table

from autoseg.dataset.labels import CaseStatement
from autoseg.sampling.batch import Batch
from autoseg.training.evidence.background_prior import LARGEST_MASS, N_ZONES, BackgroundPrior
from autoseg.training.evidence.drawn import drawn_evidence
from autoseg.training.evidence.promises import Promises
from autoseg.training.evidence.source import Evidence
from autoseg.training.evidence.totals import Totals


def make(statements: dict | None = None, totals: Totals = TOTALS) -> BackgroundPrior:
    return BackgroundPrior(0.5, labels(statements), totals, CPU)


def weights_of(one: Batch, statements: dict | None = None) -> torch.Tensor:
    return make(statements).adjust(drawn_evidence(one), one, silent()).weights[0]


def predicted(unannotated: list[list[float]], hits: list[float], alarms: list[float]) -> BackgroundPrior:
    """Return the prior after mean predictions on unannotated voxels of zones 0, 1 .. and on held-out ones."""
    prior = make()
    for zone, means in enumerate(unannotated):
        prior.unannotated[0, zone] = 10 * torch.tensor(means)
        prior.unannotated[1, zone] = 10
    ten = torch.full((3,), 10.0)
    prior.held_out.copy_(torch.stack([10 * torch.tensor(hits), ten, 10 * torch.tensor(alarms), ten]))
    return prior


def test_the_rate_follows_from_shares_by_hand():
    at_first = make().rates()  # nothing was predicted yet
    torch.testing.assert_close(at_first, torch.full((N_ZONES,), LARGEST_MASS * 200 / 11_000))
    prior = predicted([[0.8, 0.2, 0.1], [0.98, 0.11, 0.1]], [0.9, 0.9, 0.6], [0.1, 0.1, 0.1])
    torch.testing.assert_close(prior.shares()[0], torch.tensor([0.7 / 0.8, 0.1 / 0.8, 0.0]))
    # class a: 0.5 * 60 / (0.125 * 10000), and a tenth of that share farther out; class b has no share, hence no bound
    rates = prior.rates()
    torch.testing.assert_close(rates[:2], torch.tensor([0.75 * 0.5 * 60 / 1250, 0.975 * 0.5 * 60 / 125]))
    prior.held_out[0, 1] = 2.0  # hits of class a: 0.2, below the third of chance, so the gate is 0.6 squared
    prior.unannotated[0, 0, 1] = 1.1  # its share: (0.11 - 0.1) / (0.2 - 0.1)
    torch.testing.assert_close(prior.rates()[0], 0.36 * 0.8 * torch.tensor(0.5 * 60 / 1000))
    assert (rates[2:] == rates[1]).all() and len(rates) == N_ZONES  # no voxel lies farther out: as nearer


def test_no_class_is_taken_to_be_more_common_farther_away():
    prior = predicted([[0.8, 0.2, 0.0], [0.98, 0.11, 0.0], [0.0, 0.9, 0.9]], [0.9, 0.9, 0.9], [0.1, 0.1, 0.1])
    torch.testing.assert_close(prior.shares()[:3, 1:], torch.tensor([[0.125, 0.0], [0.0125, 0.0], [0.0125, 0.0]]))

    prior.unannotated[:, 0] = 0  # no voxel lies so near
    torch.testing.assert_close(prior.shares()[:3, 1:], torch.tensor([[0.0, 0.0], [0.0125, 0.0], [0.0125, 0.0]]))


def test_the_prior_leaves_alone_what_is_common_and_what_it_has_begun_to_eat():
    common = predicted([[0.5, 0.5, 0.0]] * N_ZONES, [0.9, 0.9, 0.9], [0.1, 0.1, 0.1])
    assert not common.rates().any()  # a is half of the image
    eaten = predicted([[0.999, 0.001, 0.0]] * N_ZONES, [0.99, 0.001, 0.5], [0.01, 0.001, 0.005])
    assert (eaten.rates() < 1e-4).all()  # a is found no more, neither here nor there


def test_the_prior_spares_cases_whose_classes_were_only_partly_annotated():
    statements = {"lazy": CaseStatement(frozenset({1})), "healthy": CaseStatement(None, frozenset({2}))}
    codes = torch.zeros(1, 2, 2, dtype=torch.long)
    assert weights_of(batch(codes, name="lazy"), statements)[UNKNOWN] == 0
    assert weights_of(batch(codes, name="healthy"), statements)[UNKNOWN] > 0


def test_open_codes_are_background_with_the_rate_of_their_zone():
    one, prior = batch(torch.zeros(1, 2, 2, dtype=torch.long)), make()
    evidence = prior.adjust(drawn_evidence(one), one, silent())
    assert evidence.table.learnt[0, UNKNOWN].tolist() == [True, False, False]
    assert evidence.weights[0].tolist() == [1, 1, 1, prior.rates()[1], 1, 0]  # the last one is in no zone


def test_statistics_count_unannotated_and_held_out_voxels_apart():
    prior = make()
    codes = torch.tensor([[[UNKNOWN, UNKNOWN, 5, 0]]])
    logits = torch.tensor([[[0.0, 0, 0, 0], [9, -9, 9, 9], [-9, -9, -9, -9]]])[:, :, None]
    p = logits.softmax(1)[0, :, 0]
    prior.observe(batch(codes, held_out=True), logits)
    torch.testing.assert_close(prior.unannotated[0, 1], p[:, 0] + p[:, 1])
    assert prior.unannotated[1, :, 0].tolist() == [0, 2, 0, 0, 0]
    hits, alarms = prior.held_out[0::2]
    torch.testing.assert_close(hits, torch.tensor([0, p[1, 2], 0]))
    torch.testing.assert_close(alarms, torch.tensor([p[0, 2], 0, p[2, 2]]))


def test_where_a_class_is_absent_the_prior_speaks_if_it_says_more():
    """Unannotated voxels of a case without class 1: background by the prior, or "not 1", whichever weighs more."""
    statements = {"x": CaseStatement(absent=frozenset({1}))}
    of_case = table(1, zone=[-1, -1, -1, -1, 1, -1])._replace(undrawn=torch.tensor([4]))
    one = replace(batch(torch.full((1, 4, 4), 4)), table=of_case)
    totals = replace(TOTALS, n_promised=10_000, n_unknown=0)
    for promise_weight, expected in ((0.0, [True, False, False]), (50.0, [True, False, True])):
        promises, prior = Promises(promise_weight, totals), make(statements, totals)
        evidence: Evidence = drawn_evidence(one)
        for source in (promises, prior):
            evidence = source.adjust(evidence, one, silent())
        assert evidence.table.learnt[0, 4].tolist() == expected
        assert evidence.weights[0, 4] == max(float(prior.rates()[1]), promises.weight)


def test_state_survives_a_resumed_run():
    one, other = make(), make()
    one.unannotated.uniform_()
    one.held_out.uniform_()
    other.restore(one.state(), torch.nn.Identity())
    assert torch.equal(one.unannotated, other.unannotated) and torch.equal(one.held_out, other.held_out)
