"""Destinations that write nothing: ``--count`` counts the records, and a plan without a destination only shows itself."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from confluent_kafka import Message

from bridge.errors import ConfigurationError
from bridge.headers import CE_TYPE, QUARANTINE_REASON
from bridge.operate.reading.select import header
from bridge.operate.replay.destination import Context, Destination
from bridge.operate.replay.state import Run, State


class CountDestination(Destination):
    """Counts records by partition, and by the event's type or the reason it was quarantined for, as headers name them.

    Args:
        _asked: the option's value, which says nothing more.
        context: of the command.
    """

    needs_execute: ClassVar[bool] = False

    def __init__(self, _asked: object, context: Context) -> None:
        self.context = context
        self.partitions: Counter[int] = Counter()
        self.types: Counter[str] = Counter()

    def describe(self, run: Run) -> str:  # noqa: ARG002 - the same for all
        """Nowhere: nothing is written."""
        return "nowhere"

    def open(self, state: State) -> None:
        """There is nothing to open."""

    def write(self, messages: Sequence[Message]) -> None:
        """Count."""
        for message in messages:
            self.partitions[message.partition() or 0] += 1
            headers: Any = message.headers()
            kind = header(headers, CE_TYPE) or header(headers, QUARANTINE_REASON) or b"without a type"
            self.types[kind.decode(errors="replace")] += 1

    def resume(self, state: State) -> State:
        """There is nothing to go on from."""
        return state

    def commit(self, state: State, *, wait: bool = True) -> None:
        """There is nothing to keep."""

    def close(self) -> None:
        """Nothing is open."""

    def report(self) -> list[str]:
        """What was counted."""
        return [
            f"{name} {what}: {count:,}"
            for name, counts in (("partition", self.partitions), ("type", self.types))
            for what, count in sorted(counts.items())
        ]

    def outcome(self, run: Run) -> str:  # noqa: ARG002 - the same for all
        """They fit the bounds and filters."""
        return "fit"

    def how_to_go_on(self, state: State) -> str:  # noqa: ARG002 - the same for all
        """There is nothing to go on with."""
        return "nothing was written"


class NoDestination(CountDestination):
    """What a plan has where no destination was named: it can be shown, and not be executed."""

    needs_execute: ClassVar[bool] = True

    def check(self, run: Run) -> list[str]:  # noqa: ARG002 - the same for all
        """Refuse to execute it.

        Raises:
            ConfigurationError: there is nowhere to write to.
        """
        if self.context.execute:
            raise ConfigurationError(
                "--execute: nowhere to write to; give --to-file FILE, --to-topic TOPIC, or --count"
            )
        return []

    def missing(self) -> str:
        """The options that name a destination."""
        return " It needs --to-file FILE or --to-topic TOPIC as well."
