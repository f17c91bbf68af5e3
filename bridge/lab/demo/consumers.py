"""Three teams that use the events: CRM, billing and alerting. Small enough to copy.

What they have in common is what every consumer of the topic has to do: take each event once, however often it stands
on Kafka, and lean on no order of events. Tables are in memory here; with a database, the event's id and what follows
from the event belong in one transaction, as ``tests/acceptance/consumers`` shows.
"""

from abc import ABC, abstractmethod
from collections import Counter, defaultdict

import msgspec

from bridge.consume import Decoder, Event, Named, Status, count_people, people

_DELIVERED_RANK = 2

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


class Messages:
    """Counts messages: people may share a message_id, and one person may be named by number, by user id or by both.

    Attributes:
        count: how many they are; it never shrinks.
    """

    def __init__(self) -> None:
        self.count = 0
        self._named: dict[str, set[Named]] = {}

    def add(self, event: Event) -> None:
        """Count the message that the event is about, unless it is counted already."""
        named = self._named.setdefault(event.message_id, set())
        before = count_people(named)
        named.add((event.recipient, event.user_id))
        self.count += count_people(named) - before


class MessageState(msgspec.Struct):
    """What is known of one message, whatever the order in which it became known."""

    rank: int = 0
    failed: bool = False
    deleted: bool = False

    def merge(self, other: "MessageState") -> None:
        """Know what the other one knows, too."""
        self.rank = max(self.rank, other.rank)
        self.failed |= other.failed
        self.deleted |= other.deleted

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

    Failed and Deleted have no rank: they are kept beside the ladder. What is known is kept by the names it came with, since
    to whom it belongs may become clear later.
    """

    name = "CRM"

    def __init__(self) -> None:
        super().__init__()
        self.last: Event | None = None
        self._messages = Messages()
        self._known: dict[str, dict[Named, MessageState]] = {}

    def apply(self, event: Event) -> None:
        """Move the message up the ladder, never down."""
        known = self._known.setdefault(event.message_id, {})
        state = known.setdefault((event.recipient, event.user_id), MessageState())
        state.merge(MessageState(event.status_rank, event.status is Status.FAILED, event.status is Status.DELETED))
        self._messages.add(event)
        self.last = event

    @property
    def total(self) -> int:
        """Messages known."""
        return self._messages.count

    @property
    def messages(self) -> dict[tuple[str, str], MessageState]:
        """The state of each message, by its message_id and the person it is for."""
        messages: dict[tuple[str, str], MessageState] = {}
        for message_id, known in self._known.items():
            for named, person in people(known).items():
                messages.setdefault((message_id, person), MessageState()).merge(known[named])
        return messages

    def states(self) -> Counter[str]:
        """How many messages are in which state."""
        return Counter(state.name for state in self.messages.values())


class Billing(Consumer):
    """One charge for each message delivered, at its first DELIVERED or READ: DELIVERED may never come."""

    name = "billing"
    price_cents = 4

    def __init__(self) -> None:
        super().__init__()
        self._delivered = Messages()

    def apply(self, event: Event) -> None:
        """Charge, unless this message was charged before."""
        if event.is_delivered:
            self._delivered.add(event)

    @property
    def total(self) -> int:
        """Charges made."""
        return self._delivered.count

    @property
    def amount_cents(self) -> int:
        """What they come to."""
        return self.total * self.price_cents


class Alerting(Consumer):
    """How many messages fail, why, and with which template. The category is in the event: no table of codes here."""

    name = "alerting"

    def __init__(self) -> None:
        super().__init__()
        self._messages = Messages()
        self._failed = Messages()
        self._by_category: defaultdict[str, Messages] = defaultdict(Messages)
        self._by_template: defaultdict[str, Messages] = defaultdict(Messages)

    def apply(self, event: Event) -> None:
        """Count it, by category and by template, if it failed."""
        self._messages.add(event)
        if event.status is Status.FAILED:
            self._failed.add(event)
            self._by_category[event.error_category].add(event)
            if event.template_name is not None:
                self._by_template[event.template_name].add(event)

    @property
    def total(self) -> int:
        """Messages that failed."""
        return self._failed.count

    @property
    def failures(self) -> Counter[str]:
        """How many messages failed, by category; one that failed twice for the same reason failed once."""
        return Counter({category: messages.count for category, messages in self._by_category.items()})

    @property
    def templates(self) -> Counter[str]:
        """How many messages failed, by template."""
        return Counter({template: messages.count for template, messages in self._by_template.items()})

    def rate(self, category: str | None = None) -> float:
        """Messages that failed, for one category or any, for each message."""
        failures = self.total if category is None else self.failures[category]
        return failures / self._messages.count if self._messages.count else 0.0


class Audit(Billing):
    """A team that arrives late and counts the charges for itself, from the first event on."""

    name = "audit"
