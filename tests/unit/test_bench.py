"""The benchmark's arithmetic: a figure that is computed wrongly is worse than none."""

import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from bench.figures import Sample, Spread, ratio, spread, verdict
from bench.guard import Ratios, losses
from bench.report import BLOCKS, PAGE, pictures
from bench.results import Results

SAMPLE = Sample(
    contestant="bridge", leg="closed", reports=10, rate=0, requests_per_second=100, reports_per_second=1000, p50_ms=1, p99_ms=2,
    p999_ms=3, cpu_us=10, kafka_cpu_us=5, load_cpu_us=1, rss_mib=80, acknowledged=5000, delivered=5000, other={},
)  # fmt: skip


def rounds(contestant: str, *rates: float, cpu: float = 10) -> list[Sample]:
    """One sample a rate."""
    replace = msgspec.structs.replace
    return [replace(SAMPLE, contestant=contestant, reports_per_second=rate, cpu_us=cpu) for rate in rates]


def test_a_figure_is_the_median_with_its_spread() -> None:
    """And not the mean."""
    assert Spread(3, 1, 9) == spread(rounds("bridge", 9, 1, 3), "reports_per_second")


def test_ratios_are_made_round_by_round() -> None:
    """A slow moment that strikes both moves no ratio."""
    assert Spread(0.5, 0.25, 0.5) == ratio(rounds("a", 50, 5, 25), rounds("b", 100, 10, 100), "reports_per_second")


@pytest.mark.parametrize(
    ("change", "exact", "words"),
    [
        ({}, True, "all"),
        ({"delivered": 4990}, True, "**10 of 5,000 lost**"),
        ({"delivered": 5010}, True, "10 more"),
        ({"delivered": 5010}, False, "all"),
        # what was not answered 200 may be there all the same
        ({"delivered": 5010, "other": {"503": 1}}, True, "all, 1 not 200"),
        ({"delivered": None}, True, "-"),
    ],
)
def test_what_was_delivered_is_said(change: dict[str, object], exact: bool, words: str) -> None:
    """In words that a reader of the table understands."""
    sample = msgspec.convert(msgspec.to_builtins(SAMPLE) | change, Sample)
    assert words == verdict([sample], exact=exact)


def test_a_round_with_more_does_not_hide_one_that_lost() -> None:
    """Sums over rounds would."""
    more, fewer = (msgspec.structs.replace(SAMPLE, delivered=count) for count in (5010, 4990))
    assert verdict([more, fewer], exact=True).startswith("**10 of 10,000 lost")


@pytest.mark.parametrize(
    ("rate", "cpu", "lost"),
    [
        (500, 20, []),
        (330, 20, []),  # within 20 % of the least that was stored
        (310, 20, ["reports_per_second"]),
        (500, 25, ["cpu_us"]),
        (900, 5, []),
    ],
)
def test_only_a_clear_loss_counts(rate: float, cpu: float, lost: list[str]) -> None:
    """More than 20 % beyond the spread that was stored."""
    peer = rounds("franz", 1000, 1000, 1000)
    stored = Ratios.of(rounds("bridge", 400, 500, 600, cpu=20) + peer)
    now = Ratios.of(rounds("bridge", rate, rate, rate, cpu=cpu) + peer)
    assert lost == [sentence.split()[0] for sentence in losses(now, stored)]


def test_ratios_survive_their_file() -> None:
    """Sizes are keys of a JSON object there."""
    ratios = Ratios.of(rounds("bridge", 1, 2, 3) + rounds("franz", 4, 5, 6))
    assert ratios == msgspec.json.decode(msgspec.json.encode(ratios), type=Ratios)


def test_the_page_has_a_place_for_each_block_and_shows_each_picture() -> None:
    """Else a run of an hour ends in an error."""
    text = PAGE.read_text()
    for name in BLOCKS:
        assert 1 == text.count(f"<!-- bench:{name} -->\n") == text.count(f"<!-- /bench:{name} -->"), name
    results = Results(samples=[*rounds("bridge", 1, 2), msgspec.structs.replace(SAMPLE, leg="open")])
    for name, picture in pictures(results).items():
        assert f"(pictures/performance-{name}.svg)" in text
        assert "1,000" in picture or "2.00" in picture or "10.0" in picture or "1.50" in picture


def test_a_leg_that_is_measured_again_takes_the_place_of_what_was_there() -> None:
    """Of all contestants of that size, so that no ratio is made of two runs."""
    other = msgspec.structs.replace(SAMPLE, reports=100)
    results = Results(samples=[*rounds("bridge", 1), *rounds("franz", 2), other])
    results.put("closed", rounds("bridge", 3))
    assert [other, *rounds("bridge", 3)] == results.samples
