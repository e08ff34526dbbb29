from __future__ import annotations

import json
import sys

import benchmark_losses
import pytest
import torch
from benchmark_losses import KINDS, deviation, main, make_content, make_step, peak_mib, plain_loss

from autoseg.cli import common


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the command in this process and gives what it printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmark_losses.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
        return capsys.readouterr().out

    threads = torch.get_num_threads()
    yield call
    torch.set_num_threads(threads)
    common.log.handlers.clear()
    common.log.propagate = True


def test_every_kind_of_codes_is_measured_and_right(run):
    rows = json.loads(run("--classes", 2, 4, "--edge", 6, "--repetitions", 1, "--json"))
    assert [row["codes"] for row in rows if row["n_classes"] == 4] == list(KINDS)
    assert [row["codes"] for row in rows if row["n_classes"] == 2] == ["dense", "sparse"]
    for row in rows:
        assert row["error"] < 1e-5
        assert row["time_ratio"] == pytest.approx(row["ours_ms"] / row["plain_ms"])
        assert row["memory_ratio"] == pytest.approx(row["ours_mib"] / row["plain_mib"])


def test_the_table_has_a_line_per_row(run):
    lines = run("--classes", 3, "--edge", 4, "--repetitions", 1).splitlines()
    assert len(lines) == 2 + len(KINDS)
    assert len({line.count("|") for line in lines}) == 1


def test_plain_on_dense_codes_is_the_same_loss():
    content = make_content("dense", 5, 6)
    ours = benchmark_losses.LabelSetLoss(None, batch_dice=False)(content.logits, content.codes, content.label_sets)
    torch.testing.assert_close(plain_loss(content.logits, content.classes), ours)


def test_codes_hold_the_shares_that_their_kind_promises():
    for kind, share in (("sparse", 0.9), ("one set", 0.6), ("three sets", 0.6)):
        content = make_content(kind, 4, 16)
        assert (content.codes >= 4).float().mean().item() == pytest.approx(share, abs=0.03)
    assert set(make_content("three sets", 4, 8).codes.unique().tolist()) == {0, 1, 2, 3, 5, 6, 7}


def test_a_wrong_loss_is_refused(monkeypatch):
    content = make_content("dense", 3, 4)
    monkeypatch.setattr(benchmark_losses, "spelled_out", lambda logits, content: logits.sum())
    with pytest.raises(RuntimeError, match="the loss is off by"):
        deviation(content)


def test_peak_memory_holds_at_least_the_gradient():
    content = make_content("dense", 4, 16)
    size = content.logits.numel() * 4 / 2**20
    assert peak_mib(make_step("nnunet", content), content) > peak_mib(make_step("plain", content), content) - size
    assert peak_mib(make_step("ours", content), content) >= size
