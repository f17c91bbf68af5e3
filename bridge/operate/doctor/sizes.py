"""How large a request, a batch and a record may be: as large as the bridge makes them, else found by bisection."""

import math
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

from bridge.config import Kafka
from bridge.encode.records import QUARANTINE_HEAD_BYTES
from bridge.kafka.errors import TIMED_OUT, Action
from bridge.operate.doctor.findings import Finding, Outcome
from bridge.operate.doctor.sending import Sent, records_of, send_patiently
from bridge.operate.doctor.session import Session

# What a request has beside its batches, from above; and what a batch has beside the value of its one record.
_REQUEST_HEAD, _BATCH_HEAD = 1024, 128
# The least that the keys can be set to.
_LEAST_REQUEST, _LEAST_BATCH = 32_768, 16_384
_TRIES: Final = 8
_STEP: Final = 1024

_WHY: Final = "Without this the bridge finds the limit by requests that fail, after each start and again each minute."


class _SlowError(Exception):
    """A large request had no answer in time."""


async def sizes(session: Session) -> Finding:
    """Requests, batches and records of the largest configured sizes are taken."""
    probe = _Probe(session)
    try:
        return await _judged(session, probe)
    except _SlowError as slow:
        why = "The bridge waits up to 120 s for a large request. Look at the network between here and there."
        return Finding("sizes", Outcome.ADVICE, str(slow), why, facts=probe.facts)


async def _judged(session: Session, probe: "_Probe") -> Finding:
    kafka = session.settings.kafka
    wanted = kafka.max_request_bytes + _REQUEST_HEAD
    request = await probe.largest(wanted, probe.is_read)
    notes = [f"a request of {wanted:,} bytes fails ({probe.refusal}), one of {request:,} is answered"] * (
        request < wanted
    )
    wanted = max(kafka.max_batch_bytes, kafka.max_record_bytes)
    record = await _largest_record(session, probe, wanted)
    notes += [f"a record of {wanted:,} bytes fails ({probe.refusal}), one of {record:,} is taken"] * (record < wanted)
    if request < _LEAST_REQUEST + _REQUEST_HEAD or record < _LEAST_BATCH:
        why = f"The bridge needs requests of {_LEAST_REQUEST:,} bytes and records of {_LEAST_BATCH:,} at least."
        return Finding("sizes", Outcome.BROKEN, "; ".join(notes), why, facts=probe.facts)
    advice = limits(kafka, request - _REQUEST_HEAD, record)
    quarantined = await _quarantine_note(session, probe)
    seen = "; ".join([*notes, quarantined] if quarantined else notes)
    why = _WHY if advice else ""
    if not seen:
        return Finding("sizes", Outcome.GOOD, "the largest requests, batches and records are taken", facts=probe.facts)
    return Finding("sizes", Outcome.ADVICE, seen, why, advice, facts=probe.facts)


async def _largest_record(session: Session, probe: "_Probe", wanted: int) -> int:
    """The largest record that the status topic takes, as far as the test topic and Kafka's answers show it."""
    largest = await probe.largest(wanted, probe.is_taken)
    shown = session.largest_status
    if not session.made and probe.refused_by_topic and shown is not None:
        largest = wanted  # only the named topic's own setting was in the way
    if shown is not None and shown < largest:
        probe.refusal = f"max.message.bytes of {session.settings.topics.status} is {shown:,}"
        return shown
    return largest


async def _quarantine_note(session: Session, probe: "_Probe") -> str:
    """How large a body the quarantine can keep, if that is less than a callback may have; else empty."""
    wanted = session.settings.limits.body_bytes + QUARANTINE_HEAD_BYTES
    try:
        largest = await probe.largest(wanted, probe.is_taken)
    except _SlowError as slow:
        return str(slow)
    if largest == wanted or (probe.refused_by_topic and not session.made):
        return ""
    return (
        f"a record of {wanted:,} bytes fails ({probe.refusal}), one of {largest:,} is taken: a larger body that can't be "
        "understood becomes a dead letter, and not a record of the quarantine"
    )


def limits(kafka: Kafka, request: int, record: int) -> dict[str, Any]:
    """The keys to set where Kafka takes requests with this many bytes of batches, and records of this many bytes."""
    most_request = _lowered(kafka.max_request_bytes, request)
    most_batch = min(_lowered(kafka.max_batch_bytes, record), most_request - _REQUEST_HEAD)
    advised = {
        "max_request_bytes": max(most_request, _LEAST_REQUEST),
        "max_batch_bytes": max(most_batch, _LEAST_BATCH),
        "max_record_bytes": max(_lowered(kafka.max_record_bytes, record), _LEAST_BATCH),
    }
    return {f"kafka.{key}": value for key, value in advised.items() if value != getattr(kafka, key)}


def _lowered(configured: int, limit: int) -> int:
    return configured if configured <= limit else limit // _STEP * _STEP


class _Probe:
    """Sends single records of random bytes, which no codec makes smaller. A size is that of the batch, about.

    Attributes:
        refusal: how the record of the size that was wanted failed, in words; empty if it did not.
        refused_by_topic: whether it failed because the topic takes no record of this size.
        facts: each size that was tried, and what became of it.
    """

    def __init__(self, session: Session) -> None:
        self._session, self._partition = session, session.partitions[0]
        self._results: dict[int, Sent] = {}
        self.refusal, self.refused_by_topic = "", False

    @property
    def facts(self) -> dict[str, Any]:
        results = sorted(self._results.items())
        return {"tried": {str(size): sent.why or "taken" for size, sent in results}}

    async def is_read(self, size: int) -> bool:
        """Whether a broker answers a request of this size, also if it refuses the record in it."""
        return not (await self._sent(size)).lost

    async def is_taken(self, size: int) -> bool:
        """Whether a record of this size is in the log."""
        return (await self._sent(size)).error is None

    async def largest(self, wanted: int, holds: Callable[[int], Awaitable[bool]]) -> int:
        """The largest size up to ``wanted`` for which it holds, as far as some tries can tell; 0 if there is none."""
        self.refusal, self.refused_by_topic = "", False
        if await holds(wanted):
            return wanted
        if self._results.pop(wanted).lost and await holds(wanted):
            return wanted  # connections are closed for other reasons, too
        refused = await self._sent(wanted)
        self.refusal, self.refused_by_topic = (
            refused.why,
            refused.error is not None and refused.error.action is Action.SPLIT,
        )
        tried = [_LEAST_BATCH, *(size for size in self._results if size < wanted)]
        low = max([size for size in tried if await holds(size)], default=0)
        high = min([size for size in self._results if size > low and not await holds(size)], default=wanted)
        for _ in range(_TRIES if low else 0):
            middle = math.isqrt(low * high)
            if await holds(middle):
                low = middle
            else:
                high = middle
        return low

    async def _sent(self, size: int) -> Sent:
        if size not in self._results:
            self._results[size] = sent = await self._try(size)
            if sent.error == TIMED_OUT:
                raise _SlowError(f"a request of {size:,} bytes had {sent.why}")
        return self._results[size]

    async def _try(self, size: int) -> Sent:
        value = os.urandom(max(1, size - _BATCH_HEAD))
        return await send_patiently(self._session, self._partition, records_of(self._session, value), "none")
