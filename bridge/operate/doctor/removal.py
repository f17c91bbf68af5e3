"""Removing from Kafka what the checks made; what is not confirmed in time is listed.

It goes over the connections of ``wire.py``: clients of confluent_kafka may take a second to close.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aiokafka.protocol.admin import DeleteGroupsRequest, DeleteTopicsRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest

from bridge.errors import KafkaUnavailable
from bridge.kafka.admin import ANSWER_MS, connected
from bridge.kafka.connection import client_arguments, reason
from bridge.kafka.errors import NONE, code_name
from bridge.kafka.wire import CONNECTION_FAILURES, connect
from bridge.operate.doctor.session import CONNECT_SECONDS, GROUP, TOPIC, Session

_UNKNOWN_TOPIC, _UNKNOWN_GROUP = 3, 69
_OF_A_GROUP: Final = 0


async def clean_up(session: Session, seconds: float) -> None:
    """Delete what this run made; what is not confirmed in time stays in ``session.left``."""
    removals = [(TOPIC, _delete_topic), (GROUP, _delete_group)]
    tasks = [
        asyncio.create_task(_tried(session, *each)) for each in removals if (each[0], session.name) in session.left
    ]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    session.close()


async def _tried(session: Session, kind: str, delete: Callable[[Session], Awaitable[int]]) -> None:
    try:
        code = await delete(session)
    except CONNECTION_FAILURES as error:
        session.leave(kind, session.name, f"it could not be deleted: {reason(error)}")
        return
    unknown = code in {_UNKNOWN_TOPIC, _UNKNOWN_GROUP}
    if code == NONE or (unknown and not session.doubtful(kind)):
        session.removed(kind, session.name)
    elif unknown:
        session.leave(kind, session.name, "Kafka does not know it now, but may still have been making it")
    else:
        session.leave(kind, session.name, f"Kafka does not delete it: {code_name(code)}")


async def _delete_topic(session: Session) -> int:
    async with connected(session.settings.kafka) as admin:
        answer = await admin.order(DeleteTopicsRequest([session.name], ANSWER_MS))
    return int(answer.topic_error_codes[0][1])


async def _delete_group(session: Session) -> int:
    kafka = session.settings.kafka
    async with connected(kafka) as admin:
        found = await admin.ask(FindCoordinatorRequest(session.name, _OF_A_GROUP))
    if found.error_code:
        raise KafkaUnavailable(f"no broker coordinates it: {code_name(found.error_code)}")
    coordinator = await connect(found.host, found.port, client_arguments(kafka), CONNECT_SECONDS)
    try:
        answer = await coordinator.ask_aiokafka(DeleteGroupsRequest([session.name]))
    finally:
        coordinator.abort("not used any more")
    return int(answer.results[0][1])
