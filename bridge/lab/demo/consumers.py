"""Three teams that use the events: CRM, billing and alerting. Small enough to copy.

What they have in common is what every consumer of the topic has to do: take each event once, however often it stands
on Kafka, and lean on no order of events. Tables are in memory here; with a database, the event's id and what follows
from the event belong in one transaction, as ``tests/acceptance/consumers`` shows.
"""

from abc import ABC, abstractmethod
from collections import Counter

import msgspec

from bridge.consume import Decoder, Event, Status

_DELIVERED_RANK = 2

Message = tuple[str, str]
"""One message: its id and its recipient, as two recipients may share an id."""

_decode = Decoder().decode


class Consumer(ABC):
    """Takes every event once.

    Attributes:
        events: how many different ones were taken.
        repeats: how many records were of an event taken before.
    """

    name: str

    def __init__(self) -> None:
        self.events = 0
        self.repeats = 0
        self._taken: set[str] = set()

    def receive(self, event_id: str, value: bytes) -> None:
        """Take one record; ``event_id`` is its header ``ce_id``, so that a repeat need not even be decoded."""
        if event_id in self._taken:
            self.repeats += 1
            return
        event = _decode(value)
        if not event.is_test:
            self.apply(event)
            self.events += 1
        self._taken.add(event_id)

    @abstractmethod
    def apply(self, event: Event) -> None:
        """Change the table by an event that was not seen before."""

    @property
    @abstractmethod
    def total(self) -> int:
        """The number this team answers for."""


class MessageState(msgspec.Struct):
    """What is known of one message, whatever the order in which it became known."""

    rank: int = 0
    failed: bool = False
    deleted: bool = False

    @property
    def name(self) -> str:
        """The state to show. What was delivered stays so, even where a failure is reported after it."""
        if self.deleted:
            return "DELETED"
        if self.failed and self.rank < _DELIVERED_RANK:
            return "FAILED"
        return ("UNKNOWN", "SENT", "DELIVERED", "READ")[self.rank]


class Crm(Consumer):
    """The latest state of every message: the highest rank counts, not the last to arrive.

    Failed and Deleted have no rank: they are kept beside the ladder.
    """

    name = "CRM"

    def __init__(self) -> None:
        super().__init__()
        self.messages: dict[Message, MessageState] = {}
        self.last: Event | None = None

    def apply(self, event: Event) -> None:
        """Move the message up the ladder, never down."""
        state = self.messages.setdefault(event.message, MessageState())
        state.rank = max(state.rank, event.status_rank)
        state.failed |= event.status is Status.FAILED
        state.deleted |= event.status is Status.DELETED
        self.last = event

    @property
    def total(self) -> int:
        """Messages known."""
        return len(self.messages)

    def states(self) -> Counter[str]:
        """How many messages are in which state."""
        return Counter(state.name for state in self.messages.values())


class Billing(Consumer):
    """One charge for each message delivered, at its first DELIVERED or READ: DELIVERED may never come."""

    name = "billing"
    price_cents = 4

    def __init__(self) -> None:
        super().__init__()
        self.charged: set[Message] = set()

    def apply(self, event: Event) -> None:
        """Charge, unless this message was charged before."""
        if event.is_delivered:
            self.charged.add(event.message)

    @property
    def total(self) -> int:
        """Charges made."""
        return len(self.charged)

    @property
    def amount_cents(self) -> int:
        """What they come to."""
        return self.total * self.price_cents


class Alerting(Consumer):
    """How many messages fail, why, and with which template. The category is in the event: no table of codes here."""

    name = "alerting"

    def __init__(self) -> None:
        super().__init__()
        self.messages: set[Message] = set()
        self.failures: Counter[str] = Counter()
        self.templates: Counter[str] = Counter()

    def apply(self, event: Event) -> None:
        """Count it, by category and by template, if it failed."""
        self.messages.add(event.message)
        if event.status is Status.FAILED:
            self.failures[event.error_category] += 1
            if event.template_name is not None:
                self.templates[event.template_name] += 1

    @property
    def total(self) -> int:
        """Failures seen."""
        return self.failures.total()

    def rate(self, category: str | None = None) -> float:
        """Failures, of one category or of all, for each message."""
        failures = self.total if category is None else self.failures[category]
        return failures / len(self.messages) if self.messages else 0.0


class Audit(Billing):
    """A team that arrives late and counts the charges for itself, from the first event on."""

    name = "audit"
