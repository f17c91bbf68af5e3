"""The topic that a replay writes to: whether it may, what to expect there, and the run that is kept on Kafka."""

from typing import Any, Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException

from bridge.config import Settings
from bridge.errors import ConfigurationError, ReplayError
from bridge.operate.console import duration
from bridge.operate.reading.client import ClusterInspector
from bridge.operate.replay.state import State, from_offsets, group_of
from bridge.operate.replay.topic import TopicSink

_FOR_EVER: Final = -1
_MESSAGE_BYTES: Final = 1_048_588


def check_target(asker: ClusterInspector, settings: Settings, source: str, target: str, forced: bool) -> list[str]:
    """Notes on a topic that is to be written to.

    Raises:
        ConfigurationError: it is one of the bridge's own, and that was not asked for.
        ReplayError: it is not there.
    """
    topics = settings.topics
    if source == topics.quarantine and target == topics.status:
        raise ConfigurationError(
            "--to-topic: what is quarantined is no event; `chatapp-bridge redrive` makes events of it"
        )
    if target in {source, topics.status, topics.quarantine} and not forced:
        what = "the topic that is read" if target == source else "one of the bridge's own topics"
        raise ConfigurationError(
            f"--to-topic: {target} is {what}: all its consumers would see the records again; add --allow-own-topic if you mean it"
        )
    theirs, ours = len(asker.partitions(target)), len(asker.partitions(source))
    notes = []
    if theirs != ours:
        notes.append(
            f"{target} has {theirs} partitions, {source} {ours}: keys are placed as the Java client places them there"
        )
    found = asker.topic_configuration(target)
    if not found:
        return [*notes, f"the settings of {target} may not be read; see that its retention.ms is long enough"]
    retention = int(found.get("retention.ms", _FOR_EVER))
    if retention != _FOR_EVER and "delete" in found.get("cleanup.policy", "delete"):
        notes.append(
            f"{target} keeps records for {duration(retention / 1000)} by their own timestamps; older ones go soon again"
        )
    if "compact" in found.get("cleanup.policy", ""):
        notes.append(f"{target} is compacted: of each key only the last record stays")
    if found.get("message.timestamp.type") == "LogAppendTime":
        notes.append(f"{target} gives records its own timestamps (message.timestamp.type): theirs are lost there")
    return notes


def open_target(
    asker: ClusterInspector, settings: Settings, state: State, timeout_seconds: float, *, taken_up: bool
) -> tuple[TopicSink, State]:
    """The sink, and how far the run is now that nobody else can write for it any more.

    Raises:
        ReplayError, KafkaUnavailable: of the sink; or the run is gone.
    """
    run = state.run
    assert run.target is not None  # noqa: S101 - it is why this is called
    found = asker.topic_configuration(run.target)
    sink = TopicSink(
        settings.kafka,
        run.id,
        run.target,
        partitions=len(asker.partitions(run.target)),
        source_partitions=len(asker.partitions(run.topic)),
        max_message_bytes=int(found.get("max.message.bytes", _MESSAGE_BYTES)),
        timeout_seconds=timeout_seconds,
    )
    if taken_up:
        # What was at hand when the last process died is committed or aborted by now.
        again = find_run(asker, settings.kafka.client_id, run.id, stable=True)
        if again is None:
            raise ReplayError(f"run {run.id}: the offsets of its group are gone; what it wrote can't be told any more")
        state = again
    return sink, state


def find_run(asker: ClusterInspector, client_id: str, run_id: str, *, stable: bool = False) -> State | None:
    """The state of a run into a topic; None where Kafka knows of none.

    Args:
        asker: asks.
        client_id: ``kafka.client_id``, which the run was begun with.
        run_id: of the run.
        stable: wait for transactions that are being committed.

    Raises:
        ReplayError, KafkaUnavailable: of the asker.
    """
    request = ConsumerGroupTopicPartitions(group_of(client_id, run_id))

    def ask() -> Any:
        (future,) = asker.admin.list_consumer_group_offsets([request], require_stable=stable).values()
        result = future.result()
        for place in result.topic_partitions:
            if place.error is not None:
                raise KafkaException(place.error)
        return result.topic_partitions

    offsets = asker.patiently(ask, f"asking how far run {run_id} is")
    committed = [place for place in offsets if place.offset >= 0]
    return from_offsets(committed) if committed else None
