"""What a lane does about a batch that was not acknowledged.

A refusal takes no record away while it may be the cluster's fault. A record becomes a dead letter when it alone was refused for
five minutes with answers that leave no doubt, while batches of other lanes were accepted; at once when the answer names it and
others are accepted, or when it is larger than the topic's largest message. Everything else is tried again.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import structlog

from bridge.delivery.entry import Refusal, Taken
from bridge.kafka.batch import Batch
from bridge.kafka.errors import MOVED, NOT_SENT, Action, ProduceError
from bridge.kafka.producer import Producer
from bridge.record import Record

log = structlog.get_logger(__name__)

_SHORT_SECONDS, _SECOND, _LONG_SECONDS = 0.05, 1.0, 30.0
# A single record becomes a dead letter after this long, if Kafka accepted a batch of another lane this recently.
_ALONE_SECONDS, _ELSEWHERE_SECONDS = 300.0, 60.0
# The same where the broker closes the connection each time instead of an answer, as it does with a request that is too large.
_CLOSES_TO_HALVE, _CLOSES_TO_GIVE_AWAY, _CLOSED_SECONDS, _CLOSED_PAUSE_SECONDS = 2, 3, 30.0, 5.0
# No broker has a smaller limit for requests: on what is smaller it closes for another reason.
_LEAST_LIMIT_BYTES: Final = 16_384
# Kafka's default of max.message.bytes, where the broker does not tell the topic's.
_USUAL_LARGEST_MESSAGE: Final = 1_048_588
# For asking for it.
_ASKED_SECONDS: Final = 5.0
_INVALID_RECORD: Final = 87


class Step(NamedTuple):
    """What is next for the records of a batch.

    Attributes:
        again: send the batch again as it is; else its records are taken from the queue anew.
        halve: put fewer records into a batch.
        pause_seconds: the longest pause before; 0 for none.
        give_away: records that Kafka will not take.
        too_large: for that reason.
        reason: of ``give_away``, in words.
    """

    again: bool = False
    halve: bool = False
    pause_seconds: float = 0.0
    give_away: Sequence[Record] = ()
    too_large: bool = False
    reason: str = ""


class Refusals:
    """Of one lane.

    Args:
        topic: of the lane.
        number: of the lane.
        taken: of all lanes.

    Attributes:
        now: what Kafka refuses the head with; None where it does not.
        stamp: whether records are stamped with the time of their sending.
    """

    def __init__(self, topic: str, number: int, taken: Taken) -> None:
        self._topic, self._number, self._taken = topic, number, taken
        self._loop = asyncio.get_running_loop()
        self._began: dict[str, tuple[Record, float]] = {}
        self.now: Refusal | None = None
        self.stamp = False

    def accepted(self) -> None:
        """Kafka has accepted a batch of the lane."""
        self.now = None
        self._taken.note(self._number, self._loop.time())

    def step(self, batch: Batch, error: ProduceError, producer: Producer) -> Step:  # noqa: PLR0911 - an answer each
        """What to do about a batch that was not acknowledged."""
        if error in (NOT_SENT, MOVED):
            return Step(again=batch.unresolved)
        if error.is_answer:
            self._note(error.text, is_logged=not error.of_the_leader)
        elif batch.closes:
            self._since("closed", batch.records[0])
        match error.action:
            case Action.RESEND | Action.RENUMBER:
                if batch.closes >= _CLOSES_TO_HALVE:
                    return self._closed(batch, producer)
                # Without numbers, each further attempt is another copy in the log.
                is_copied = error.appended and not batch.numbered
                is_short = error.of_the_leader and not is_copied
                return Step(again=True, pause_seconds=_SECOND if is_short else _LONG_SECONDS)
            case Action.RETRY:
                return Step(again=batch.unresolved, pause_seconds=_SECOND)
            case Action.SPLIT:
                return self._too_large(batch, producer)
            case Action.CODEC if producer.use_next_codec(batch):
                return Step(again=True)
            case Action.CLOCK:
                return self._clock(batch, error, producer)
        return self._refused(batch, error, producer)

    def _note(self, text: str, *, is_logged: bool = True) -> None:
        """Remember what Kafka refuses. What passes when a leader is back is logged by the producer, one line for all lanes."""
        self._taken.last_refusal = text
        if is_logged and (self.now is None or self.now.error != text):
            log.warning("lane_refused", topic=self._topic, lane=self._number, error=text)
        self.now = Refusal(text, time.time() if self.now is None else self.now.since)

    def _closed(self, batch: Batch, producer: Producer) -> Step:
        """The broker closed the connection instead of an answer, each time that the batch was sent alone.

        If it has accepted as much since, the size is not why: a broker that is ill, or a poor network, closes on everything. For
        the same reason no record is given away unless the broker has accepted something lately.
        """
        now, since = self._loop.time(), self._since("closed", batch.records[0])
        size, lone, sizes = batch.size, now - since, producer.sizes
        leader = producer.cluster.leader(batch.topic, batch.partition)
        too_large = size > _LEAST_LIMIT_BYTES and sizes.largest_accepted(leader, since) < size
        takes_others = sizes.largest_accepted(leader, now - _CLOSED_SECONDS) > 0
        what = f"the broker closes the connection on a request with one record of {size:,} bytes"
        # Without a number for several: every lane has another one, and pages and progress tell each text there is.
        self._note("the broker closes the connection instead of an answer" if len(batch.records) > 1 else what)
        if len(batch.records) > 1:
            if too_large or (lone >= _CLOSED_SECONDS and takes_others):
                producer.renumber(batch)
                sizes.batch_too_large(batch)
                return Step(halve=True, pause_seconds=_SECOND)
            return Step(again=True, pause_seconds=_SECOND)
        long = lone >= (_CLOSED_SECONDS if too_large else _ALONE_SECONDS) and batch.closes >= _CLOSES_TO_GIVE_AWAY
        if long and takes_others:
            producer.renumber(batch)
            return Step(give_away=batch.records, reason=what)
        return Step(again=True, pause_seconds=_CLOSED_PAUSE_SECONDS)

    def _too_large(self, batch: Batch, producer: Producer) -> Step:
        producer.renumber(batch)
        if len(batch.records) > 1:
            producer.sizes.batch_too_large(batch)
            return Step(halve=True)
        # A broker counts the batch before compression where the topic has a codec of its own.
        size, largest = max(batch.size, batch.size_before_compression), producer.cluster.largest_message(self._topic)
        if largest is None and self._loop.time() - self._since("large", batch.records[0]) < _ASKED_SECONDS:
            return Step(pause_seconds=_SECOND)
        if size > (_USUAL_LARGEST_MESSAGE if largest is None else largest):
            reason = f"{size:,} bytes are more than max.message.bytes of the topic"
            return Step(give_away=batch.records, too_large=True, reason=reason)
        if largest is not None:
            self._note(
                f"MESSAGE_TOO_LARGE (10) for a batch of {size:,} bytes, though max.message.bytes of {self._topic} is "
                f"{largest:,}: a setting of the brokers or of a proxy is lower"
            )
        return Step(pause_seconds=_LONG_SECONDS)

    def _clock(self, batch: Batch, error: ProduceError, producer: Producer) -> Step:
        producer.renumber(batch)
        if not batch.stamped:
            self.stamp = True
            log.warning("records_restamped", topic=self._topic, lane=self._number, error=error.text)
            return Step()
        self._note(f"{error.text}; the broker refuses this clock: compare the bridge's and the brokers' time")
        return Step(pause_seconds=_LONG_SECONDS)

    def _refused(self, batch: Batch, error: ProduceError, producer: Producer) -> Step:
        producer.renumber(batch)
        named = sorted({each.place for each in error.records if 0 <= each.place < len(batch.records)})
        if named and self._is_of_the_records(batch, error, named, producer):
            return Step(give_away=[batch.records[index] for index in named], reason=error.text)
        if len(batch.records) > 1:
            return Step(halve=not producer.refuses_everything, pause_seconds=_SHORT_SECONDS)
        now, since = self._loop.time(), self._since("alone", batch.records[0])
        if now - since >= _ALONE_SECONDS and self._taken.elsewhere(self._number, now - _ELSEWHERE_SECONDS):
            return Step(give_away=batch.records, reason=error.text)
        return Step(pause_seconds=_LONG_SECONDS)

    def _is_of_the_records(self, batch: Batch, error: ProduceError, named: Sequence[int], producer: Producer) -> bool:
        """Whether the answer tells what it names from other records; else the check may fail everywhere."""
        others = len(named) < len(batch.records)
        if producer.refuses_everything:
            return others and error.code == _INVALID_RECORD
        return others or self._taken.elsewhere(self._number, self._since("named", batch.records[0]))

    def _since(self, what: Literal["alone", "closed", "large", "named"], record: Record) -> float:
        """When this began to happen to a batch that begins with the record, in the loop's time."""
        known = self._began.get(what)
        if known is None or known[0] is not record:
            known = self._began[what] = record, self._loop.time()
        return known[1]
