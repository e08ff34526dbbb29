"""Shares of ranks."""

from __future__ import annotations

import pytest

from autoseg.core.ranks import Ranks


@pytest.mark.parametrize(("n", "size"), [(4, 1), (4, 2), (4, 3), (12, 5), (2, 4), (0, 2)])
def test_shares_are_contiguous_and_together_everything_and_differ_by_one_at_most(n, size):
    shares = [Ranks(rank, size).share(n) for rank in range(size)]
    assert [item for share in shares for item in share] == list(range(n))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_one_process_has_everything_and_agrees_with_itself():
    ranks = Ranks()
    assert ranks.is_first and ranks.share(3) == range(3)
    assert ranks.sum(2.5) == 2.5
    assert ranks.any(True) and not ranks.any(False)


def test_only_rank_0_is_first():
    assert [Ranks(rank, 3).is_first for rank in range(3)] == [True, False, False]
