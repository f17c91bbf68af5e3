"""At the end: do all counts agree? What must be there follows from the provider's ledgers alone.

Three accounts meet here that share nothing: what the provider pushed and was answered, what an independent reader finds
on Kafka, and what each team has in its table.
"""

import hashlib
from collections.abc import Iterable, Sequence
from http import HTTPStatus

import msgspec
from aiokafka import ConsumerRecord

from bridge.headers import CE_ID
from bridge.lab.demo.consumers import Alerting, Billing, Consumer, Crm
from bridge.lab.demo.groups import header
from bridge.lab.simulate.check import CheckResult, Consumed, check
from bridge.lab.simulate.ledger import Attempt, Entry
from bridge.lab.simulate.push import Report

ANSWER_SECONDS = 3.0
# A connection that broke as the bridge died is noticed this much later at most.
_NOTICED_SECONDS = 1.0


class Row(msgspec.Struct, frozen=True):
    """One line of the account; ``wanted`` is None where there is nothing to compare."""

    name: str
    wanted: int | None
    found: int

    @property
    def agrees(self) -> bool:
        """Whether it is as it has to be."""
        return self.wanted is None or self.wanted == self.found


class Reckoning(msgspec.Struct, frozen=True):
    """All lines, and the check of the ledger against Kafka, which has the details."""

    rows: tuple[Row, ...]
    check: CheckResult

    @property
    def agrees(self) -> bool:
        """Whether every count agrees."""
        return self.check.ok and all(row.agrees for row in self.rows)


class People(msgspec.Struct, frozen=True):
    """Whom the reports of each message_id name, by number and by user id: one person may come by both, and several may share it.

    They are as many messages as there are different numbers, or different user ids where those are more, and at least one.
    """

    numbers: dict[str, set[str]]
    user_ids: dict[str, set[str]]

    @classmethod
    def nobody(cls) -> "People":
        """Before any report."""
        return cls({}, {})

    def add(self, report: Report) -> None:
        """Count whom this report names."""
        self.numbers.setdefault(report.message_id, set()).update({report.to} - {""})
        self.user_ids.setdefault(report.message_id, set()).update({report.user_id} - {""})

    def counts(self) -> dict[str, int]:
        """How many messages each message_id is."""
        return {each: max(1, len(numbers), len(self.user_ids[each])) for each, numbers in self.numbers.items()}

    @property
    def total(self) -> int:
        """How many messages they are all together."""
        return sum(self.counts().values())


class Expected(msgspec.Struct, frozen=True):
    """What must come of what was pushed: each kind of fact once, however often it was pushed."""

    events: set[str]
    quarantined: set[str]
    messages: People
    delivered: People
    failed: People

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Expected":
        """From all callbacks."""
        expected = cls(set(), set(), People.nobody(), People.nobody(), People.nobody())
        for report in (report for entry in entries for report in entry.reports):
            if report.event_id is None:
                expected.quarantined.add(report.raw_sha256 or "")
                continue
            status = report.status.strip().casefold()
            expected.events.add(report.event_id)
            expected.messages.add(report)
            if status in {"delivered", "read"}:
                expected.delivered.add(report)
            if status == "failed":
                expected.failed.add(report)
        return expected

    def of_team(self, consumer: Consumer) -> tuple[str, int]:
        """What this team counts, and how many that must be."""
        match consumer:
            case Crm():
                return "messages known", self.messages.total
            case Billing():
                return "charges", self.delivered.total
            case Alerting():
                return "messages failed", self.failed.total
        raise TypeError(type(consumer))


def reckon(
    entries: Sequence[Entry],
    statuses: Sequence[ConsumerRecord],
    quarantined: Sequence[ConsumerRecord],
    consumers: Sequence[Consumer],
    deaths: Sequence[tuple[float, float]] = (),
) -> Reckoning:
    """Compare the three accounts.

    Args:
        entries: every callback of every campaign.
        statuses: the status topic, from its beginning.
        quarantined: the quarantine topic, from its beginning.
        consumers: the teams.
        deaths: from when to when the bridge was dead, on the ledger's clock.
    """
    found = [Consumed(header(r, CE_ID), r.key.decode(), r.partition, r.offset) for r in statuses]
    hashes = [hashlib.sha256(record.value).hexdigest() for record in quarantined]
    checked = check(entries, found, hashes)
    expected = Expected.of(entries)
    acknowledged = [entry for entry in entries if entry.acknowledged]
    first = sum(entry.attempts[0].error is None for entry in acknowledged)
    rows = [
        Row("callbacks answered 200", len(entries), len(acknowledged)),
        Row("  of them after a retry", None, len(acknowledged) - first),
        Row("reports answered 200", _reports(entries), _reports(acknowledged)),
        Row("events on Kafka", len(expected.events), len({record.event_id for record in found})),
        Row("  repeats, on Kafka too", None, len(found) - len({record.event_id for record in found})),
        Row("items quarantined", len(expected.quarantined), len(set(hashes))),
        *(_team(consumer, expected) for consumer in consumers),
        Row("answers late, or other than 200", 0, len(broken_promises(entries, deaths))),
        Row("reports lost, invented, out of order", 0, len(checked.damages)),
    ]
    return Reckoning(tuple(rows), checked)


def broken_promises(entries: Iterable[Entry], deaths: Sequence[tuple[float, float]]) -> list[Attempt]:
    """Attempts that were not answered 200 within 3 s, but those that the bridge's death cut off or that found it dead."""
    return [
        attempt
        for entry in entries
        for attempt in entry.attempts
        if not _kept(attempt) and not _met_no_bridge(attempt, deaths)
    ]


def _kept(attempt: Attempt) -> bool:
    return attempt.status == HTTPStatus.OK and attempt.latency_seconds <= ANSWER_SECONDS


def _met_no_bridge(attempt: Attempt, deaths: Sequence[tuple[float, float]]) -> bool:
    if attempt.status is not None or attempt.error == "timeout":
        return False
    return any(
        killed_at <= attempt.ended_at <= ready_at + _NOTICED_SECONDS
        # What was sent to the bridge that is there again, it alone can have cut off; its other port may listen first.
        and (attempt.sent_at <= ready_at or attempt.error == "refused")
        for killed_at, ready_at in deaths
    )


def _reports(entries: Iterable[Entry]) -> int:
    return sum(len(entry.reports) for entry in entries)


def _team(consumer: Consumer, expected: Expected) -> Row:
    what, wanted = expected.of_team(consumer)
    return Row(f"{consumer.name}: {what}", wanted, consumer.total)
