"""What replay, redrive, audit and tail need: to read, a transaction, and a consumer group."""

import asyncio
from typing import Any, Final

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition

from bridge.config import Kafka
from bridge.errors import KafkaUnavailable, ReplayError
from bridge.operate.doctor.findings import Finding, Outcome
from bridge.operate.doctor.sending import records_of, send_patiently
from bridge.operate.doctor.session import GROUP, TRANSACTIONAL_ID, NotTried, Session, keep
from bridge.operate.reading.client import client_configuration, consumer_configuration, make
from bridge.operate.reading.inspector import ClusterInspector
from bridge.operate.reading.reader import Reader
from bridge.operate.transactions import Transactions

# The first transaction of a cluster waits until the topic for their state is made.
_SECONDS: Final = 15.0
# The client asks all brokers, also those that can't be reached.
_LIST_SECONDS: Final = 5.0
_RIGHTS: Final = "`chatapp-bridge topics acls --replay` lists the rights"


async def read(session: Session) -> Finding:
    """What was written can be read back, as replay, tail and audit read."""
    name, topic, kafka = "read back", session.topic, session.settings.kafka
    partitions = session.partitions

    def ends() -> dict[int, int]:
        with keep(ClusterInspector(kafka, _SECONDS)) as inspector:
            return {number: offsets.end for number, offsets in inspector.offsets(topic, partitions).items()}

    def keys(ranges: dict[int, tuple[int, int]]) -> set[bytes | None]:
        with keep(Reader(kafka, topic, ranges, timeout_seconds=_SECONDS)) as reader:
            return {message.key() for messages in reader for message in messages}

    try:
        before = await session.in_thread(ends)
        written = [records_of(session, b"to be read back") for _ in partitions]
        codec = kafka.compression_type
        sending = [send_patiently(session, *each, codec) for each in zip(partitions, written, strict=True)]
        failed = [sent.why for sent in await asyncio.gather(*sending) if sent.why]
        if failed:
            raise NotTried(f"a record to read back was not written: {failed[0]}")
        after = await session.in_thread(ends)
        found = await session.in_thread(lambda: keys({each: (before[each], after[each]) for each in partitions}))
    except (ReplayError, KafkaUnavailable) as error:
        return Finding(
            name, Outcome.ADVICE, str(error), f"The bridge needs no right to read, but replay does: {_RIGHTS}."
        )
    missing = [record.key for records in written for record in records if record.key not in found]
    if missing:
        seen = f"{len(missing)} of {len(written)} acknowledged records were not read back"
        return Finding(name, Outcome.BROKEN, seen, "Look at the brokers: they lost, or hide, what they acknowledged.")
    return Finding(name, Outcome.GOOD, f"{len(written)} record(s) written and read back")


async def transaction(session: Session) -> Finding:
    """A transaction can be committed, with a group's offsets in it: so replay and redrive write to a topic."""
    name = "transaction"
    place, begun = _place(session), list[bool]()
    session.leave(TRANSACTIONAL_ID, session.name, "Kafka forgets it by itself, after seven days by default")
    if place is not None:
        session.leave(GROUP, session.name, "it was not confirmed that Kafka has deleted it")
    try:
        await session.in_thread(lambda: _commit(session, place, begun))
    except (ReplayError, KafkaUnavailable) as error:
        if not begun and isinstance(error, ReplayError):
            session.removed(TRANSACTIONAL_ID, session.name)
            session.removed(GROUP, session.name)
        why = (
            "Where there are no transactions, `replay --to-topic` and `redrive` take --at-least-once, and a record may come "
            f"twice. Where a right is missing, {_RIGHTS}."
        )
        return Finding(name, Outcome.ADVICE, str(error), why, facts={"committed": False})
    did = (
        "committed, with a group's offsets" if place is not None else "begun; without a test topic nothing was written"
    )
    return Finding(name, Outcome.GOOD, f"one was {did}", facts={"committed": place is not None})


def _commit(session: Session, place: TopicPartition | None, begun: list[bool]) -> None:
    kafka, name = session.settings.kafka, session.name
    transactions = Transactions(
        kafka,
        name,
        batch_bytes=kafka.max_batch_bytes,
        beginning="asking for a transactional producer",
        fenced="another program uses the doctor's transactional id",
        timeout_seconds=_SECONDS,
    )
    keep(transactions)
    begun.append(True)
    try:
        if place is not None:
            record = {"key": name, "value": b"in a transaction", "partition": place.partition}
            transactions.write(place.topic, [record], "writing in a transaction")
            transactions.commit([place], keep(_consumer(kafka, name)), "committing a transaction")
    finally:
        transactions.close()


async def groups(session: Session) -> Finding:
    """A group's offsets can be kept and read, and the groups listed."""
    name, place, known = "groups", _place(session), (GROUP, session.name) in session.left
    if place is not None:
        session.leave(GROUP, session.name, "it was not confirmed that Kafka has deleted it")
    try:
        listed = await session.in_thread(lambda: _use_group(session, place))
    except (ReplayError, KafkaUnavailable) as error:
        if not known and isinstance(error, ReplayError):
            session.removed(GROUP, session.name)
        why = f"Replay and redrive keep how far they are in groups that begin with chatapp-bridge-; {_RIGHTS}."
        return Finding(name, Outcome.ADVICE, str(error), why)
    did = "offsets were committed and read" if place is not None else "without a test topic no offsets were committed"
    return Finding(name, Outcome.GOOD, f"{did}; {listed} group(s) can be listed", facts={"listed": listed})


def _use_group(session: Session, place: TopicPartition | None) -> int:
    """Commit offsets and read them; how many groups can be listed."""
    kafka, name = session.settings.kafka, session.name
    with keep(ClusterInspector(kafka, _SECONDS)) as inspector:
        if place is not None:
            wanted = ConsumerGroupTopicPartitions(name, [TopicPartition(place.topic, place.partition, place.offset)])

            def commit() -> None:
                (future,) = inspector.admin.alter_consumer_group_offsets([wanted], request_timeout=_SECONDS).values()
                future.result()

            inspector.until_answered(commit, f"committing offsets of group {name}")

            def offsets() -> list[Any]:
                request = [ConsumerGroupTopicPartitions(name)]
                (future,) = inspector.admin.list_consumer_group_offsets(request).values()
                return list(future.result().topic_partitions)

            read = inspector.until_answered(offsets, f"asking for the offsets of group {name}")
            if [each.offset for each in read] != [place.offset]:
                raise ReplayError(f"group {name} has other offsets than were committed")

        def listed() -> int:
            return len(inspector.admin.list_consumer_groups(request_timeout=_LIST_SECONDS).result().valid)

        return inspector.until_answered(listed, "asking for the list of groups")


def _consumer(kafka: Kafka, group: str) -> Any:
    return make(Consumer, consumer_configuration(client_configuration(kafka), group))


def _place(session: Session) -> TopicPartition | None:
    """The offset that the group commits; None without a topic that can be reached."""
    try:
        return TopicPartition(session.topic, session.partitions[0], 0)
    except NotTried:
        return None
