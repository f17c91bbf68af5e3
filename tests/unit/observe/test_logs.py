"""Logs: structured, and without telephone numbers, message ids or secrets, whatever is logged and by whom."""

import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import structlog

from bridge.config import Log
from bridge.observe import logs
from bridge.record import Record

NUMBER = "8613812345678"
MESSAGE_ID = "20230384705533980001"
SECRET = "a-secret-of-the-tests-1"  # noqa: S105 - opens nothing
PASSWORD = "pass(word)+[x]"  # noqa: S105 - opens nothing


@pytest.fixture(params=["json", "console"])
def written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Logging as ``serve`` configures it, at DEBUG, in either format; gives what was written to standard error."""
    root = logging.getLogger()
    before = (
        root.handlers[:],
        root.level,
        {name: logging.getLogger(name).level for name in ("aiokafka", "aiokafka.cluster", "_granian", "botocore")},
    )
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(Log(level="debug", format=request.param), [SECRET, PASSWORD])
    yield stream.getvalue
    structlog.reset_defaults()
    root.handlers[:], level, others = before
    root.setLevel(level)
    for name, other in others.items():
        logging.getLogger(name).setLevel(other)


class Opaque:
    """Something whose text holds data."""

    def __repr__(self) -> str:
        return f"Opaque({NUMBER}, {MESSAGE_ID}, {SECRET})"


class Carrier(msgspec.Struct):
    """A struct that holds data."""

    record: Record


RECORD = Record("topic", MESSAGE_ID.encode(), f'{{"To":"{NUMBER}"}}'.encode(), [], 1)

VALUES: dict[str, Any] = {
    "text": f"to {NUMBER}, {MESSAGE_ID} by {SECRET} with {PASSWORD}",
    "path": "/callbacks/chatapp/status/another-secret-nobody-listed?x=1",
    "number": int(NUMBER),
    "float": float(NUMBER),
    "bytes": f"{NUMBER}{SECRET}".encode(),
    "list": [NUMBER, [SECRET]],
    "set": {NUMBER, SECRET},
    "dict": {"inner": {"to": NUMBER, "secret": SECRET}},
    "key": {NUMBER: 1, SECRET: 2},
    "error": ValueError(f"{NUMBER} {SECRET}"),
    "object": Opaque(),
    "struct": Carrier(RECORD),
    "numbered": {int(NUMBER): 1},
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_no_value_of_any_kind_betrays_data(written: Callable[[], str], value: Any) -> None:
    """Texts, numbers, bytes, containers, errors and objects: numbers and secrets in them are masked."""
    structlog.get_logger("test").warning("event", value=value)

    assert_nothing_betrayed(written())


def assert_nothing_betrayed(text: str) -> None:
    """None of the data of this module is in the text, and something is."""
    assert "event" in text
    for data in (NUMBER, MESSAGE_ID, SECRET, PASSWORD, "another-secret-nobody-listed"):
        assert data not in text


def test_the_event_itself_is_masked(written: Callable[[], str]) -> None:
    """Also where the data is in the words of the message."""
    structlog.get_logger("test").error(f"event {NUMBER} {SECRET}")
    structlog.get_logger("test").error("event %s", NUMBER)

    assert_nothing_betrayed(written())


def test_other_libraries_logs_are_masked(written: Callable[[], str]) -> None:
    """The standard library's loggers end up in the same place: their messages, arguments and extras as well."""
    logging.getLogger("somebody").debug("event for %s by %s", NUMBER, SECRET, extra={"peer": NUMBER, "it": Opaque()})
    logging.getLogger("somebody").warning("event %(to)s", {"to": MESSAGE_ID})

    assert_nothing_betrayed(written())


def test_what_aws_signs_is_not_written(written: Callable[[], str]) -> None:
    """Its library prints it at DEBUG, session tokens included."""
    logging.getLogger("botocore.auth").debug("CanonicalRequest: X-Amz-Security-Token=abc")

    assert written() == ""


def fail(text: str) -> None:
    """Raise an error with a cause, the text in both."""
    try:
        {"": 0}[text]
    except KeyError as error:
        raise ValueError(text) from error


def test_tracebacks_are_masked(written: Callable[[], str]) -> None:
    """An exception's text and its causes', logged by the bridge or by anyone else; the stack itself stays."""
    for log in (structlog.get_logger("test").exception, logging.getLogger("somebody").exception):
        try:
            fail(f"{NUMBER} {MESSAGE_ID} {SECRET}")
        except ValueError:
            log("event")

    assert_nothing_betrayed(written())
    assert written().count("in fail") == 4


def test_short_numbers_stay(written: Callable[[], str]) -> None:
    """Ports, counts, durations and sizes are what logs are read for, and so is what a topic's settings are."""
    log = structlog.get_logger("test")
    log.info("event", port=8080, after_seconds=0.123, reports=1234567, free_bytes=10737418240, flag=True, none=None)
    log.error("topic_drift_detected", what="topic x, retention.ms: declared 3024000000, found 604800000")

    text = written()
    for kept in ("8080", "0.123", "1234567", "10737418240", "3024000000"):
        assert kept in text


def test_each_line_is_json_with_time_level_and_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    """In JSON: one object a line, a traceback within it, whoever logs; the time in full."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        logs.configure(Log(level="info", format="auto"))
        structlog.get_logger("ours").warning("event", number=1)
        try:
            fail("two\nlines")
        except ValueError:
            logging.getLogger("theirs").exception("event %d", 2)
        structlog.get_logger("ours").debug("below the level")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()

    ours, theirs = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (ours["event"], ours["number"], ours["level"], ours["logger"]) == ("event", 1, "warning", "ours")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("event 2", "error", "theirs")
    assert "two\nlines" in theirs["exception"]
    assert len("2026-01-01T00:00:00.000000Z") == len(ours["timestamp"])


def test_what_aiokafka_says_below_an_error_is_dropped(written: Callable[[], str]) -> None:
    """Its DEBUG lines hold keys and values: at no level of ours are they written."""
    logging.getLogger("aiokafka.consumer.fetcher").warning("event %s", RECORD)
    logging.getLogger("aiokafka.conn").debug("event")

    assert written() == ""


def test_a_missing_topic_or_broker_is_not_told_of_at_every_look(written: Callable[[], str]) -> None:
    """Aiokafka calls it an error each time, many times a second; the bridge says it once."""
    logging.getLogger("aiokafka.cluster").error("Topic %s not found in cluster metadata", "topic")
    logging.getLogger("aiokafka").error("Unable connect to node with id %s", 1)

    assert written() == ""


# --- what repeats itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("foreign", [False, True])
def test_what_repeats_itself_is_sampled(
    written: Callable[[], str], monkeypatch: pytest.MonkeyPatch, foreign: bool
) -> None:
    """Fifty lines of an event in ten seconds; the next after them says how many were left out; another event has its own."""
    now = [100.0]
    monkeypatch.setattr("bridge.observe.logs.time.monotonic", lambda: now[0])

    def say(event: str) -> None:
        if foreign:
            logging.getLogger("somebody").warning(event)
        else:
            structlog.get_logger("bridge").warning(event)

    for _ in range(1000):
        say("again")
    say("another")
    assert (written().count("again"), written().count("another")) == (50, 1)
    now[0] += 10.0
    say("again")
    assert written().count("again") == 51
    assert re.search(r"left_out\W+950\b", re.sub(r"\x1b\[[0-9;]*m", "", written()))
    now[0] += 10.0
    say("again")
    assert written().count("left_out") == 1


def test_a_line_at_debug_is_asked_for_and_never_left_out(written: Callable[[], str]) -> None:
    """One a callback, however many."""
    for _ in range(200):
        structlog.get_logger("bridge").debug("callback")
    assert written().count("callback") == 200


def test_aiokafka_says_nothing_below_error_whoever_raises_its_level(written: Callable[[], str]) -> None:
    """Its lines hold keys and values."""
    for name in ("aiokafka", "aiokafka.cluster", "aiokafka.consumer.fetcher"):
        logging.getLogger(name).setLevel(logging.DEBUG)
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger(name).log(level, "a value")
        logging.getLogger(name).error("a fault")
        logging.getLogger(name).setLevel(logging.NOTSET)
    assert "a value" not in written()
    assert written().count("a fault") == 3


def test_the_id_of_a_callback_is_not_masked(written: Callable[[], str]) -> None:
    """It ties lines and records together, and may hold many digits."""
    structlog.get_logger("bridge").info("event", callback="0123456789012345-123456789")
    assert "0123456789012345-123456789" in written()
