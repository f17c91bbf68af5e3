"""Every attempt, written down as it happens: what was pushed, when, and what was answered.

In a file the ledger is NDJSON, one line each for a push (before its first byte is sent), for an attempt (when
it ended) and for an answer that came too late. Each line goes to the operating system at once, so a killed
process leaves all but perhaps its last line whole. Times are seconds of this machine's monotonic clock,
comparable between its processes.
"""

import math
import os
import time
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path

import msgspec

from bridge.errors import ConfigurationError
from bridge.lab.simulate.push import Push, Report


class Started(msgspec.Struct, frozen=True, tag="run"):
    """The first line: what ties the monotonic clock to the time of day (seconds since the epoch)."""

    monotonic: float
    epoch: float


class Opened(msgspec.Struct, frozen=True, tag="push"):
    """A push, about to be sent for the first time."""

    push: int
    sent_at: float
    reports: tuple[Report, ...]


class Attempt(msgspec.Struct, frozen=True, gc=False, tag="attempt"):
    """One attempt of a push, ``number`` from 1, when it ended.

    ``intended_at`` is when it should have been sent, ``sent_at`` when it was, ``ended_at`` when its answer
    was whole or it failed. ``status`` is the HTTP status if there was one. ``error`` is None where it was
    acknowledged: 200, the documented body, in time; else one of ``status``, ``body``, ``timeout``,
    ``refused``, ``connect``, ``closed``, ``cut short``, ``malformed``. ``gave_up`` marks the last attempt of
    a push that nothing acknowledged: it is lost.
    """

    push: int
    number: int
    intended_at: float
    sent_at: float
    ended_at: float
    status: int | None
    error: str | None
    gave_up: bool = False

    @property
    def latency_seconds(self) -> float:
        """From the intended time, so that a stalled sender can't hide a stalled receiver."""
        return self.ended_at - self.intended_at


class LateAnswer(msgspec.Struct, frozen=True, tag="late"):
    """An answer to an attempt that had already timed out."""

    push: int
    number: int
    status: int
    at: float


_Line = Started | Opened | Attempt | LateAnswer


class Entry:
    """All that is known of one push."""

    __slots__ = ("acknowledged", "attempts", "late", "number", "promised_at", "reports", "sent_at")

    def __init__(self, opened: Opened) -> None:
        self.number = opened.push
        self.reports = opened.reports
        self.sent_at = opened.sent_at
        self.attempts: list[Attempt] = []
        self.late: list[LateAnswer] = []
        self.acknowledged = False
        self.promised_at = math.inf
        """When it was first answered 200, in time or late, whatever the body: then it must not be lost."""

    def promise(self, status: int | None, at: float) -> None:
        """Take note of an answer."""
        if status == HTTPStatus.OK:
            self.promised_at = min(self.promised_at, at)


class Latency(msgspec.Struct, frozen=True):
    """Percentiles (nearest rank) of ``count`` attempts, in seconds; NaN for none."""

    count: int
    p50_seconds: float
    p99_seconds: float
    p99_9_seconds: float
    max_seconds: float

    @classmethod
    def of(cls, latencies: Iterable[float]) -> "Latency":
        """From latencies in seconds, in any order."""
        ordered = sorted(latencies)

        def rank(percent: float) -> float:
            return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan

        return cls(len(ordered), rank(50), rank(99), rank(99.9), rank(100))


class Summary(msgspec.Struct, frozen=True):
    """What became of a run. Counts are of pushes where nothing else is said.

    ``unresolved`` were neither acknowledged nor given up: the run was interrupted. ``answers`` counts
    attempts by HTTP status, or by the word of their failure. ``latency`` is of the attempts that were
    answered, whatever the status, and of those that timed out, which count with the time they were waited
    for; ``late_answers`` came after that.
    """

    pushes: int
    reports: int
    acknowledged_first: int
    acknowledged_after_retry: int
    lost: int
    lost_reports: int
    unresolved: int
    answers: dict[str, int]
    late_answers: int
    latency: Latency
    duration_seconds: float

    @property
    def ok(self) -> bool:
        """Whether every push was acknowledged."""
        return self.lost == 0 and self.unresolved == 0


class Ledger:
    """The account of a run, in memory and, given a ``path``, in that file.

    The file must not exist yet: nothing that was observed is ever written over. Else ConfigurationError.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.entries: dict[int, Entry] = {}
        self.reports = self.acknowledged_first = self.acknowledged_after_retry = 0
        self.lost = self.lost_reports = 0
        self._file: int | None = None
        self._encode = msgspec.json.Encoder().encode
        if path is not None:
            try:
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            except OSError as error:
                raise ConfigurationError(f"the ledger {path} can't be created: {error.strerror}") from error
            self._write(Started(time.monotonic(), time.time()))

    @classmethod
    def read(cls, path: Path) -> "Ledger":
        """The account that a file holds; a last line that a kill cut short is left out. Raises OSError."""
        ledger = cls()
        decode = msgspec.json.Decoder(_Line).decode
        *whole, _cut = path.read_bytes().split(b"\n")
        for line in whole:
            match decode(line):
                case Opened() as opened:
                    ledger._open(opened)
                case Attempt() as attempt:
                    ledger.attempted(attempt)
                case LateAnswer() as late:
                    ledger.answered_late(late)
        return ledger

    def opened(self, push: Push, sent_at: float) -> None:
        """A push is about to be sent for the first time."""
        self._open(Opened(push.number, sent_at, push.reports))

    def attempted(self, attempt: Attempt) -> None:
        """An attempt ended."""
        self._write(attempt)
        entry = self.entries[attempt.push]
        entry.attempts.append(attempt)
        entry.promise(attempt.status, attempt.ended_at)
        if attempt.error is None:
            entry.acknowledged = True
            self.acknowledged_first += attempt.number == 1
            self.acknowledged_after_retry += attempt.number > 1
        elif attempt.gave_up:
            self.lost += 1
            self.lost_reports += len(entry.reports)

    def answered_late(self, late: LateAnswer) -> None:
        """An answer came to an attempt that had timed out."""
        self._write(late)
        entry = self.entries[late.push]
        entry.late.append(late)
        entry.promise(late.status, late.at)

    def close(self) -> None:
        """Close the file; the account in memory stays."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def summary(self) -> Summary:
        """What became of everything so far."""
        attempts = [attempt for entry in self.entries.values() for attempt in entry.attempts]
        answered = [a.latency_seconds for a in attempts if a.status is not None or a.error == "timeout"]
        times = [a.ended_at for a in attempts] + [entry.sent_at for entry in self.entries.values()]
        return Summary(
            pushes=len(self.entries),
            reports=self.reports,
            acknowledged_first=self.acknowledged_first,
            acknowledged_after_retry=self.acknowledged_after_retry,
            lost=self.lost,
            lost_reports=self.lost_reports,
            unresolved=len(self.entries) - self.acknowledged_first - self.acknowledged_after_retry - self.lost,
            answers=dict(sorted(Counter(_outcome(attempt) for attempt in attempts).items())),
            late_answers=sum(len(entry.late) for entry in self.entries.values()),
            latency=Latency.of(answered),
            duration_seconds=max(times) - min(times) if times else 0.0,
        )

    def _open(self, opened: Opened) -> None:
        self._write(opened)
        self.entries[opened.push] = Entry(opened)
        self.reports += len(opened.reports)

    def _write(self, line: _Line) -> None:
        if self._file is not None:
            text = self._encode(line) + b"\n"
            if os.write(self._file, text) != len(text):
                raise OSError("the ledger's disk is full")


def _outcome(attempt: Attempt) -> str:
    if attempt.status is None:
        return attempt.error or "none"
    return f"{attempt.status} with a wrong body" if attempt.error == "body" else str(attempt.status)
