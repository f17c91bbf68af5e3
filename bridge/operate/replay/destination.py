"""Where a replay writes: what each destination has to offer. ``destinations.py`` lists those there are."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol

from confluent_kafka import Consumer, Message

from bridge.config import Settings
from bridge.operate.ndjson import Lines
from bridge.operate.reading.events import decoder_of
from bridge.operate.reading.inspector import ClusterInspector
from bridge.operate.replay.state import Run, State


class Context(NamedTuple):
    """What the command gives each destination: the configuration, and the options that are about writing."""

    settings: Settings
    inspector: ClusterInspector
    timeout_seconds: float
    allow_own_topic: bool = False
    execute: bool = False

    def lines(self, topic: str) -> Lines:
        """Makes lines of JSON of a topic's records."""
        return Lines(topic, decoder_of(self.settings, topic))


class Destination(Protocol):
    """A destination: made of an option and the context, asked, opened or resumed once, written to, closed.

    What is written counts when it is committed, and not before. Members with a body suit most destinations.

    Attributes:
        context: of the command.
        cost: how long reading and writing a record takes, as a multiple of reading it alone.
        needs_execute: whether ``--execute`` is needed, as something is written.
        uses_standard_output: whether records go there, so that the plan has to go elsewhere.
        commit_records: how many records are written between two commits at most; None: any number.
    """

    context: Context
    cost: ClassVar[float] = 1.0
    needs_execute: ClassVar[bool] = True
    uses_standard_output: ClassVar[bool] = False
    commit_records: int | None = None

    # --- before it is opened ------------------------------------------------------------------------------------------

    def describe(self, run: Run) -> str:
        """Name the destination for people: ``write       FILE, as lines of JSON``."""

    def recorded(self) -> dict[str, str]:
        """The fields of ``Run`` that name the destination."""
        return {}

    def is_of(self, run: Run) -> bool:  # noqa: ARG002 - most are the destination of no run that could be resumed
        """Whether a run writes to this destination."""
        return False

    def check(self, run: Run) -> list[str]:  # noqa: ARG002 - most have nothing to say
        """Check that a new run can write there, before anything is read: notes for the plan.

        Raises:
            ConfigurationError, ReplayError: it can't.
        """
        return []

    def missing(self) -> str:
        """Say, behind the plan, which option is missing before it can be executed."""
        return ""

    def lines(self, topic: str) -> Lines:
        """Encodes records as the run will, for a sample."""
        return self.context.lines(topic)

    def group(self, run: Run) -> str | None:  # noqa: ARG002 - most need none
        """The consumer group whose offsets are the run's progress; None where they are not."""
        return None

    # --- from then on -------------------------------------------------------------------------------------------------

    def open(self, state: State) -> None:
        """Begin a new run.

        Raises:
            KafkaUnavailable, ReplayError: it can't be begun.
        """

    def resume(self, state: State) -> State:
        """Go on with a run: the state it is in, now that no other process can write for it.

        Raises:
            KafkaUnavailable, ReplayError: it can't be gone on with.
        """

    def attend(self, consumer: Consumer) -> None:
        """Take the consumer that reads, for the metadata of its group."""
        del consumer  # most need nothing of it

    def write(self, messages: Sequence[Message]) -> None:
        """Take messages, in their order."""

    def commit(self, state: State, *, wait: bool = True) -> None:
        """Make what was written durable, together with how far the run came; without ``wait``, soon."""

    def close(self) -> None:
        """Close it; what was not committed may be lost."""

    # --- in words -----------------------------------------------------------------------------------------------------

    def report(self) -> list[str]:
        """What to print on standard output when all is read."""
        return []

    def outcome(self, run: Run) -> str:
        """What became of the records that were chosen: ``12 written to FILE``."""
        return f"written to {self.describe(run)}"

    def how_to_go_on(self, state: State) -> str:
        """Say how to go on with a run that was cut short."""
