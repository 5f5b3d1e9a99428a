"""What the benchmarks of fetching say follows from what they measured."""

from __future__ import annotations

from benchmarks.fetch import Rates, Took, selected
from benchmarks.fetch_memory import growth
from benchmarks.fetch_polite import apart
from benchmarks.fetch_server import Request
from wit_builder.tables import SELECTED


def request(host: str, began_s: float) -> Request:
    """Return a logged request of no length."""
    return Request(began_s, 0.0, host, "/", 200)


def test_rates_are_of_the_medians():
    """One slow run of three changes neither rate."""
    runs = [Took(2, 4, 0), Took(100, 100, 0), Took(1, 4, 0)]
    assert Rates.of(runs, 8) == (4, 2)


def test_requests_are_compared_with_those_of_their_host_only():
    """However the log mixes hosts and order, times are between requests of one host."""
    log = [request("a", 3), request("b", 3.1), request("a", 1), request("b", 1), request("a", 2.5)]
    assert sorted(apart(log, 1)) == [0.5, 1.5, 3.1 - 1]
    assert apart(log, 2) == [2]


def test_what_is_used_in_the_first_quarter_is_no_growth():
    """Growth is from the second quarter of the samples to the last."""
    assert growth([1, 1, 5, 5, 5, 5, 7, 7]) == 2


def test_selected_pairs_are_a_table_of_the_pipeline():
    """The table has the pipeline's columns, and a uid of its own for every pair."""
    table = selected(["http://a.test/1", "http://a.test/2"])
    assert table.schema == SELECTED
    assert len(set(table["uid"].to_pylist())) == 2
