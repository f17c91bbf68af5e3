"""Bounds and filters as they are typed."""

import argparse
from typing import Any

import pytest

from bridge import cli
from bridge.operate.reading import select
from bridge.operate.reading.select import Filters, parse_bound, parse_time

NOW_MS = 1_764_072_000_500  # 2025-11-25T12:00:00.500Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-11-25T12:00:00Z", 1_764_072_000_000),
        ("2025-11-25T20:00:00+08:00", 1_764_072_000_000),
        ("2025-11-25T20:00+0800", 1_764_072_000_000),
        ("2025-11-25 12:00:00.250Z", 1_764_072_000_250),
        ("20251125T120000Z", 1_764_072_000_000),
        ("now", NOW_MS),
        ("-0s", NOW_MS),
        ("-90s", NOW_MS - 90_000),
        ("-30m", NOW_MS - 1_800_000),
        ("-6h", NOW_MS - 21_600_000),
        ("-1d12h", NOW_MS - 129_600_000),
        ("-2w", NOW_MS - 1_209_600_000),
        ("-99999w", 0),
        ("1960-01-01T00:00:00Z", 0),
    ],
)
def test_times(text: str, expected: int) -> None:
    """ISO 8601 with a zone, so long ago, now; nothing before the epoch."""
    assert parse_time(text, NOW_MS) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2025-11-25T12:00:00", "has no zone"),
        ("2025-11-25", "2025-11-25T00:00:00Z"),
        ("yesterday", "neither an offset nor a time"),
        ("-6", "neither an offset nor a time"),
        ("6h", "neither an offset nor a time"),
        ("-6y", "neither an offset nor a time"),
        ("", "neither an offset nor a time"),
        ("1764072000000", "2025-11-25T12:00:00Z"),
        ("9" * 21, "ms since the epoch"),
        ("3:1,3:2", "names a partition twice"),
        ("3:", "neither an offset nor a time"),
    ],
)
def test_what_is_refused_says_what_to_write(text: str, says: str) -> None:
    """Times without a zone above all."""
    with pytest.raises(argparse.ArgumentTypeError, match=says):
        parse_bound(text, NOW_MS)


def test_a_time_beyond_what_can_be_written_is_shown_in_milliseconds() -> None:
    """A zone may carry the last year's end over it."""
    assert str(parse_bound("9999-12-31T23:59:59-23:00")).startswith("253402383599000 ms since the epoch")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["audit", "--settle-seconds=nan"], "0 or above"),
        (["audit", "--max-listed=-1"], "0 or above"),
        (["redrive", "--group="], "is empty"),
        (["replay", "--resume="], "names no run"),
        (["audit", "--from=-1h", "--to=-2h"], "is not before --to"),
    ],
)
def test_what_means_nothing_is_refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An audit of an empty range would find nothing wrong."""
    try:
        code: Any = cli.main(words)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "inf", "nan", "many"])
def test_a_rate_is_a_number_above_zero(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Infinity is none that could be kept to."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(["replay", f"--rate={number}", "--timeout=1"])
    assert "a number above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "offsets", "partitions"),
    [
        ("0", {None: 0}, None),
        ("1200", {None: 1200}, None),
        ("3:1200", {3: 1200}, {3}),
        ("3:1,0:2", {3: 1, 0: 2}, {0, 3}),
    ],
)
def test_offsets(text: str, offsets: dict[int | None, int], partitions: set[int] | None) -> None:
    """For all partitions, or by partition."""
    bound = parse_bound(text)
    assert (bound.offsets, bound.partitions, bound.time_ms) == (offsets, partitions, None)


def parsed(*words: str) -> Filters:
    """The filters of a command line."""
    parser = argparse.ArgumentParser()
    select.add_filter_arguments(parser)
    return select.filters_of(parser.parse_args(words))


def test_filters_are_of_the_closed_lists() -> None:
    """In any case, with commas or again; what is none of them is refused."""
    filters = parsed("--status", "failed,Read", "--status", "SENT", "--error-category", "re-engagement")
    assert filters.statuses == {"FAILED", "READ", "SENT"}
    assert filters.error_categories == {"RE_ENGAGEMENT"}
    assert not parsed()
    with pytest.raises(SystemExit):
        parsed("--status", "gone")


def test_the_value_is_decoded_only_where_key_and_headers_do_not_decide() -> None:
    """Decoding costs most."""
    decoded = []

    def decode(value: bytes | None, _headers: Any, /) -> Any:
        decoded.append(value)
        return {"status": "FAILED", "error_category": "OPT_OUT"}

    failed = [("ce_type", b"chatapp.status.failed")]
    by_status = parsed("--status", "FAILED", "--key", "m-1").predicate(decode)
    assert by_status(b"m-1", failed, b"1")
    assert not by_status(b"m-2", failed, b"2")
    assert not by_status(b"m-1", [("ce_type", b"chatapp.status.read")], b"3")
    assert decoded == []
    assert by_status(b"m-1", None, b"4")
    by_category = parsed("--status", "FAILED", "--error-category", "OPT_OUT").predicate(decode)
    assert by_category(b"m-1", failed, b"5")
    assert not by_category(b"m-1", [("ce_type", b"chatapp.status.sent")], b"6")
    assert decoded == [b"4", b"5"]


@pytest.mark.parametrize("value", [None, b"", b"[]", b"{", b'{"status":3}', b"\xff"])
def test_a_value_that_is_no_event_passes_no_filter_of_events(value: bytes | None) -> None:
    """And raises nothing."""
    assert not parsed("--status", "FAILED").predicate()(b"k", None, value)
