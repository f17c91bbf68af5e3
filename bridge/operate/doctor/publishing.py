"""Publishing as the bridge does it: the producer id, the right to write, each codec, and the time to an acknowledgement."""

import asyncio
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bridge.errors import ConnectionEnded, UnsupportedBroker
from bridge.kafka.batch import Codec
from bridge.kafka.cluster import ProducerId, ask_producer_id
from bridge.kafka.errors import Action, code_name
from bridge.operate.doctor.findings import Finding, Outcome
from bridge.operate.doctor.sending import Sent, records_of, send, send_patiently
from bridge.operate.doctor.session import NotTried, Session

# More often than the bridge asks before it goes on without one.
_ASKED: Final = 5
_BELIEVED: Final = 3
_AGAIN_SECONDS: Final = 0.3
_ID_SECONDS: Final = 5.0
_NO_ANSWER: Final = f"no producer id within {_ID_SECONDS:g} s"
# In the order in which they are advised: by what they cost the bridge.
_ADVISED: Final[tuple[Codec, ...]] = ("lz4", "zstd", "snappy", "gzip", "none")
_SOME: Final[tuple[Codec, ...]] = ("gzip", "none")
_TRIES: Final = 2
_NOT_AUTHORIZED: Final = 29
_VALUE: Final = b'{"test_record_of":"chatapp-bridge doctor"}' * 20
_SAMPLES, _SAMPLES_SECONDS, _FEWEST = 20, 3.0, 3
# A lane is healthy again when acknowledgements take less than half of spool_after_ms; half a round is for what waits.
_ENOUGH, _ADVISED_TIMES, _ROUND_MS = 2.0, 3.0, 50


# --- producer id ------------------------------------------------------------------------------------------------------


async def producer_id(session: Session) -> Finding:
    """The cluster gives the bridge a producer id, by which brokers recognise batches that are sent again."""
    configured, refusals, given = session.settings.kafka.idempotence, [], None
    loop = asyncio.get_running_loop()
    until = loop.time() + _ID_SECONDS
    nodes = sorted(session.usable)
    if not nodes:
        raise NotTried("no advertised broker can be reached")
    for number in range(_ASKED):
        answer = await _ask(
            session, nodes[number % len(nodes)]
        )  # as the bridge, which asks another broker after a refusal
        if isinstance(answer, ProducerId):
            given = answer
            break
        refusals.append(answer)
        if answer == _NO_ANSWER or loop.time() > until:
            break
        await asyncio.sleep(_AGAIN_SECONDS)
    facts = {"given": given is not None, "refusals": refusals}
    session.number_with(None if configured == "false" else given)
    return _judged(configured, refusals, given=given is not None, facts=facts)


def _judged(configured: str, refusals: list[str], *, given: bool, facts: dict[str, Any]) -> Finding:
    name, key = "producer id", "kafka.idempotence"
    before = f", after {len(refusals)} refusals: {refusals[-1]}" if refusals else ""
    if given and configured == "false":
        seen = f"the cluster gives one{before}; the bridge does not use it, by {key}"
        return Finding(name, Outcome.GOOD, seen, facts=facts)
    if given and configured == "auto" and len(refusals) >= _BELIEVED:
        why = 'With "auto" the bridge stops asking after three refusals, for an hour; "true" waits for a producer id.'
        return Finding(name, Outcome.ADVICE, f"the cluster gives one{before}", why, {key: "true"}, facts=facts)
    if given:
        return Finding(name, Outcome.GOOD, f"the cluster gives one{before}", facts=facts)
    seen = f"the cluster gives none: {refusals[-1]}"
    why = "A batch that is sent again after a lost answer may then be in the log twice, with the same ce_id."
    if configured == "false":
        return Finding(name, Outcome.GOOD, f"{seen}; the bridge does without, by {key}", why, facts=facts)
    return Finding(name, Outcome.ADVICE, seen, why, {key: "false"}, facts=facts)


async def _ask(session: Session, node: int) -> ProducerId | str:
    """A producer id from that broker, or why there is none."""
    connection = await session.connection(node)
    try:
        async with asyncio.timeout(_ID_SECONDS):
            answer = await ask_producer_id(connection)
    except UnsupportedBroker as error:
        return str(error)
    except TimeoutError:
        connection.abort(_NO_ANSWER)
        return _NO_ANSWER
    except ConnectionEnded:
        return "the broker closed the connection"
    return code_name(answer.code) if answer.code else ProducerId(answer.producer_id, answer.epoch)


# --- the first record, and codecs -------------------------------------------------------------------------------------


async def write(session: Session) -> Finding:
    """This user may write, and each broker takes a record."""
    name, partitions, advice = "write", session.partitions, {}
    session.usable.clear()  # until a broker took a record
    results = await _written(session, partitions)
    if session.numbered and not session.usable:
        session.number_with(None)
        again = await _written(session, partitions)
        if session.usable:
            results, advice = again, {"kafka.idempotence": "false"}
    failed = {partition: sent.why for partition, sent in results.items() if sent.error is not None}
    facts = {"partitions": len(partitions), "failed": {str(key): text for key, text in failed.items()}}
    if failed:
        seen = "; ".join(f"broker {session.leaders[each]}, partition {each}: {text}" for each, text in failed.items())
        why = "The bridge's user needs Write on its topics: `chatapp-bridge topics acls`."
        return Finding(name, Outcome.BROKEN, seen, why if _denied(results.values()) else "", advice, facts=facts)
    if advice:
        why = "Brokers refuse batches with a producer id, and take them without."
        return Finding(name, Outcome.ADVICE, "records are taken without a producer id only", why, advice, facts=facts)
    return Finding(name, Outcome.GOOD, f"a record was written on each of {len(partitions)} broker(s)", facts=facts)


async def _written(session: Session, partitions: Sequence[int]) -> dict[int, Sent]:
    """What became of a record on each partition; the brokers that took one can be used."""
    sent = await asyncio.gather(*(_sent_with_some_codec(session, partition) for partition in partitions))
    results = dict(zip(partitions, sent, strict=True))
    session.usable |= {session.leaders[partition] for partition, each in results.items() if each.error is None}
    return results


def _denied(results: Iterable[Sent]) -> bool:
    return any(sent.error is not None and sent.error.code == _NOT_AUTHORIZED for sent in results)


async def _sent_with_some_codec(session: Session, partition: int) -> Sent:
    for codec in dict.fromkeys((session.settings.kafka.compression_type, *_SOME)):
        sent = await send_patiently(session, partition, records_of(session, _VALUE), codec)
        if sent.error is None:
            break
    return sent


async def codecs(session: Session) -> Finding:
    """The configured codec is taken; which others are."""
    name, key, configured = "compression", "kafka.compression_type", session.settings.kafka.compression_type
    partition, refused, found_out = session.partitions[0], {}, False
    for codec in _ADVISED:
        for _ in range(_TRIES):
            sent = await send_patiently(session, partition, records_of(session, _VALUE), codec)
            if sent.error is None or sent.error.action is Action.CODEC:
                break
        if sent.error is not None:
            refused[codec] = sent.why
            found_out |= codec == configured and sent.error.action is Action.CODEC
    taken = [codec for codec in _ADVISED if codec not in refused]
    facts = {"taken": taken, "refused": refused}
    if configured in taken:
        others = ", ".join(codec for codec in taken if codec != configured)
        return Finding(
            name, Outcome.GOOD, f"{configured} is taken{f', and so: {others}' if others else ''}", facts=facts
        )
    if not taken:
        return Finding(name, Outcome.BROKEN, f"no codec is taken: {refused[configured]}", facts=facts)
    seen = f"{configured} is refused: {refused[configured]}; taken: {', '.join(taken)}"
    why = (
        "Without this the bridge finds it out with its first records, after each start."
        if found_out
        else "The answer does not blame the codec, so the bridge can't find it out: without this it publishes nothing."
    )
    return Finding(name, Outcome.ADVICE, seen, why, {key: taken[0]}, facts=facts)


# --- the time to an acknowledgement -----------------------------------------------------------------------------------


async def latency(session: Session) -> Finding:
    """Acknowledgements come well before ``delivery.spool_after_ms``."""
    name, partitions, times = "latency", session.partitions, list[float]()
    loop = asyncio.get_running_loop()
    until = loop.time() + _SAMPLES_SECONDS
    for number in range(max(_SAMPLES, len(partitions))):
        if loop.time() > until and number >= _FEWEST:
            break
        records = records_of(session, _VALUE)
        sent = await send(
            session, partitions[number % len(partitions)], records, session.settings.kafka.compression_type
        )
        if sent.error is not None:
            return Finding(name, Outcome.BROKEN, f"record {number + 1} was not acknowledged: {sent.why}")
        times.append(1000 * sent.seconds)
    times.sort()
    usual, most = times[math.ceil(0.9 * len(times)) - 1], times[-1]
    facts = {"samples": len(times), "p50_ms": statistics.median(times), "p90_ms": usual, "max_ms": most}
    seen = (
        f"{facts['p50_ms']:.0f} ms at the median, {usual:.0f} ms for 9 of 10, {most:.0f} ms at most "
        f"(delivery.spool_after_ms: {session.settings.delivery.spool_after_ms})"
    )
    return _judged_latency(session, usual, seen, {key: round(value, 1) for key, value in facts.items()})


def _judged_latency(session: Session, usual_ms: float, seen: str, facts: dict[str, Any]) -> Finding:
    name, delivery = "latency", session.settings.delivery
    if usual_ms * _ENOUGH <= delivery.spool_after_ms:
        return Finding(name, Outcome.GOOD, seen, facts=facts)
    # The lane stops waiting for Kafka when half of spool_after_ms is left of the deadline.
    most = int(delivery.ack_deadline_seconds * 1000 * 2 / 3) // _ROUND_MS * _ROUND_MS
    wanted = math.ceil(usual_ms * _ADVISED_TIMES / _ROUND_MS) * _ROUND_MS
    advised = min(wanted, most)
    why = "With less, reports go by way of the disk although Kafka is well."
    if usual_ms >= most or advised <= delivery.spool_after_ms:
        why = "Nothing is lost: some or all reports go by way of the disk, as Kafka is slower than a callback can wait."
        return Finding(name, Outcome.ADVICE, seen, why, facts=facts)
    return Finding(name, Outcome.ADVICE, seen, why, {"delivery.spool_after_ms": advised}, facts=facts)
