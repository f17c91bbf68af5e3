"""A topic as the destination of a replay, exactly once: records and progress go in the same transactions.

With ``--at-least-once`` the progress is noted behind the records, so that a run that is cut short repeats some of them.
The progress is the offsets of a consumer group that belongs to the run, and that nobody joins.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from confluent_kafka import Consumer, Message

from bridge.errors import ConfigurationError, ReplayError
from bridge.headers import REPLAY
from bridge.kafka.partition import partition_for
from bridge.operate.at_least_once import AtLeastOnce
from bridge.operate.console import duration
from bridge.operate.ndjson import Lines
from bridge.operate.replay.destination import Context, Destination
from bridge.operate.replay.state import Run, State, from_offsets, group_of, to_offsets
from bridge.operate.transactions import Transactions
from bridge.operate.writing import BY_KEY, TopicWriter

_BATCH_BYTES: Final = 1_000_000
_MESSAGE_BYTES: Final = 1_048_588
# How many bytes of a value place it where there is no key, as the bridge has it.
_PLACING_BYTES: Final = 64
_NO_TIME: Final = 0
_FOR_EVER: Final = -1
_MOST_RECORDS: Final = 10**18
# Between two notes of a run without transactions: what it repeats at most when it is cut short.
_NOTED_RECORDS: Final = 10_000


def _repeats() -> str:
    again = f"up to {_NOTED_RECORDS:,} records may be written again, with the same ce_id"
    return f"each time this run is cut short and goes on, {again}"


class TopicDestination(Destination):
    """Writes to a topic; in transactions one process at a time for each run.

    Args:
        topic: its name.
        context: of the command.
    """

    # As `make bench-replay` measures it.
    cost: ClassVar[float] = 1.3

    def __init__(self, topic: str, context: Context) -> None:
        self.context = context
        self._topic = topic
        self._partitions = 0
        self._alike = False
        self._mark = (REPLAY, b"")
        self._consumer: Consumer
        self._writer: TopicWriter

    def describe(self, run: Run) -> str:
        """The topic, and the mark that its records will have."""
        how = "at least once" if run.at_least_once else "exactly once"
        return f"topic {self._topic}, {how}, each record with the header bridge_replay: {run.id}"

    def recorded(self) -> dict[str, str]:
        """The topic."""
        return {"target": self._topic}

    def is_of(self, run: Run) -> bool:
        """Whether it is the run's topic."""
        return run.target == self._topic

    def check(self, run: Run) -> list[str]:
        """Check the topic: notes on how it differs from the one that is read.

        Raises:
            ConfigurationError: it is one of the bridge's own, and that was not asked for.
            ReplayError: it is not there, or the run's filters are too long to be kept with its offsets.
        """
        self._check_own(run.topic)
        inspector = self.context.inspector
        theirs, ours = len(inspector.partitions(self._topic)), len(inspector.partitions(run.topic))
        to_offsets(_longest(run))
        notes = [_repeats()] if run.at_least_once else []
        if theirs != ours:
            notes.append(
                f"{self._topic} has {theirs} partitions, {run.topic} {ours}: keys are placed as the Java client places them there"
            )
        return [*notes, *_notes_on(self._topic, inspector.topic_configuration(self._topic))]

    def _check_own(self, source: str) -> None:
        topics = self.context.settings.topics
        if source == topics.quarantine and self._topic == topics.status:
            raise ConfigurationError(
                "--to-topic: what is quarantined is no event; `chatapp-bridge redrive` makes events of it"
            )
        if self._topic in {source, topics.status, topics.quarantine} and not self.context.allow_own_topic:
            what = "the topic that is read" if self._topic == source else "one of the bridge's own topics"
            raise ConfigurationError(
                f"--to-topic: {self._topic} is {what}: all its consumers would see the records again; add --allow-own-topic "
                "if you mean it"
            )

    def lines(self, topic: str) -> Lines:
        """Lines without decoding: the bytes are copied, so a sample needs no registry either."""
        return Lines(topic, None)

    def group(self, run: Run) -> str:
        """The run's own group."""
        return group_of(self.context.settings.kafka.client_id, run.id)

    # --- writing ------------------------------------------------------------------------------------------------------

    def open(self, state: State) -> None:
        """Take the run's transactional id, unless it does without; whoever had it can write no more.

        Raises:
            KafkaUnavailable, ReplayError: no transaction can be had; says why.
        """
        run, inspector = state.run, self.context.inspector
        found = inspector.topic_configuration(self._topic)
        self._partitions = len(inspector.partitions(self._topic))
        self._alike = self._partitions == len(inspector.partitions(run.topic))
        self._mark = (REPLAY, run.id.encode())
        kafka, timeout = self.context.settings.kafka, self.context.timeout_seconds
        batch_bytes = max(1, min(_BATCH_BYTES, int(found.get("max.message.bytes", _MESSAGE_BYTES))))
        if run.at_least_once:
            self.commit_records = _NOTED_RECORDS
            self._writer = AtLeastOnce(kafka, batch_bytes=batch_bytes, timeout_seconds=timeout)
        else:
            self._writer = Transactions(
                kafka,
                self.group(run),
                batch_bytes=batch_bytes,
                beginning="taking up the run's transactions",
                fenced="another process has taken this run over, or it stood still for too long",
                timeout_seconds=timeout,
            )

    def resume(self, state: State) -> State:
        """Take the run's transactional id, and then ask how far it is: the last process's transaction is over by now.

        Raises:
            KafkaUnavailable, ReplayError: no transaction can be had, or the run is gone.
        """
        self.open(state)
        found = _find_run(state.run.id, self.context, stable=True)
        if found is None:
            raise ReplayError(
                f"run {state.run.id}: the offsets of its group are gone; what it wrote can't be told any more"
            )
        return found

    def attend(self, consumer: Consumer) -> None:
        """Say whose group the progress belongs to."""
        self._consumer = consumer

    def write(self, messages: Sequence[Message]) -> None:
        """Write the messages; in a transaction they count when it is committed.

        Raises:
            KafkaUnavailable: nothing is acknowledged within the timeout.
            ReplayError: Kafka takes no more of this run.
        """
        if messages:
            self._writer.write(self._topic, map(self._copy, messages), f"writing to topic {self._topic}")

    def _copy(self, message: Message) -> dict[str, Any]:
        kind, time_ms = message.timestamp()
        return {
            "value": message.value(),
            "key": message.key(),
            "partition": self._place(message),
            "timestamp": 0 if kind == _NO_TIME else time_ms,
            "headers": [*(message.headers() or []), self._mark],
        }

    def _place(self, message: Message) -> int:
        """The partition: by the key; of a record without one, where it was, or where its bytes put it."""
        if message.key() is not None:
            return BY_KEY
        if self._alike:
            return message.partition()  # type: ignore[no-any-return]
        return partition_for((message.value() or b"")[:_PLACING_BYTES], self._partitions)

    def commit(self, state: State, *, wait: bool = True) -> None:  # noqa: ARG002 - a transaction is waited for
        """Commit what was written, together with how far the run came.

        Raises:
            KafkaUnavailable, ReplayError: it could not be; the transaction is aborted, nothing of it counts.
        """
        self._writer.commit(to_offsets(state), self._consumer, f"committing what was written to topic {self._topic}")

    def close(self) -> None:
        """Abort what is not committed, as far as Kafka is there; else it times out, or the next of this run aborts it."""
        self._writer.close()

    def how_to_go_on(self, state: State) -> str:
        """The command."""
        command = f"go on with: chatapp-bridge replay --resume {state.run.id} --execute"
        return f"{command}\n  {_repeats()}" if state.run.at_least_once else command


def _longest(run: Run) -> State:
    """A state whose form as offsets is as long as the run's can become."""
    most = _MOST_RECORDS
    return State(run=run, ranges={0: (most, most)}, positions={0: most}, read=most, written=most)


def _notes_on(topic: str, found: dict[str, str]) -> list[str]:
    """What the settings of a topic mean for the records that are copied there."""
    if not found:
        return [f"the settings of {topic} may not be read; see that its retention.ms is long enough"]
    notes = []
    retention = int(found.get("retention.ms", _FOR_EVER))
    if retention != _FOR_EVER and "delete" in found.get("cleanup.policy", "delete"):
        notes.append(
            f"{topic} keeps records for {duration(retention / 1000)} by their own timestamps; older ones go soon again"
        )
    if "compact" in found.get("cleanup.policy", ""):
        notes.append(f"{topic} is compacted: of each key only the last record stays")
    if found.get("message.timestamp.type") == "LogAppendTime":
        notes.append(f"{topic} gives records its own timestamps (message.timestamp.type): theirs are lost there")
    return notes


# --- finding a run ----------------------------------------------------------------------------------------------------


def find_run(run_id: str, _topic: str | None, context: Context) -> State | None:
    """The state of a run into a topic; None where Kafka knows of none.

    Raises:
        ReplayError, KafkaUnavailable: of the inspector.
    """
    found = _find_run(run_id, context, stable=False)
    # Its first transaction may be committed and not yet reported to the group's coordinator.
    return _find_run(run_id, context, stable=True) if found is None else found


def _find_run(run_id: str, context: Context, *, stable: bool) -> State | None:
    """The state; with ``stable``, after transactions that are being committed are over."""
    offsets = context.inspector.group_offsets(group_of(context.settings.kafka.client_id, run_id), stable=stable)
    committed = [place for place in offsets if place.offset >= 0]
    return from_offsets(committed) if committed else None
