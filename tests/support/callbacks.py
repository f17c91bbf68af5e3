"""Bodies as the provider pushes them, topics for a bridge of one's own, and what came of a callback."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from support.topics import consume_all, create_topic, unique_name, until

EVENTUALLY_SECONDS = 20.0
SUCCESS = b'{"code":0,"msg":"Success"}'
QUARANTINE_BYTES = 9_437_184


def mark() -> str:
    """A text that nothing else holds, and that isn't masked where it is logged."""
    return "m" + uuid.uuid4().hex.translate(str.maketrans("0123456789", "ghijklmnop"))


def report(message_id: str, status: str = "Sent", **fields: Any) -> dict[str, Any]:
    """A report as documented."""
    known = {"MessageId": message_id, "Status": status, "From": "8613100000001", "To": "8613800000002"}
    return {**known, "Timestamp": 1691132091000, **fields}


def body(*reports: Any) -> bytes:
    """An array of them."""
    return json.dumps(reports).encode()


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = EVENTUALLY_SECONDS) -> None:
    """Wait until it holds.

    Raises:
        TimeoutError: It does not within so many seconds.
    """
    async with asyncio.timeout(seconds):
        await until(holds)


async def make_topics(
    bootstrap: str, *, partitions: int = 6, replication: int | None = None, names: tuple[str, str] | None = None
) -> tuple[str, str]:
    """A topic for events and one for what is quarantined; their names."""
    status, quarantine = names or (unique_name("status"), unique_name("quarantine"))
    await create_topic(bootstrap, status, partitions=partitions, replication=replication)
    large = {"max.message.bytes": str(QUARANTINE_BYTES)}
    await create_topic(bootstrap, quarantine, partitions=2, replication=replication, config=large)
    return status, quarantine


class Kept(NamedTuple):
    """One record, in the order of its callback's items: an event (``reason`` empty) or a quarantined one."""

    position: str
    key: str | None
    reason: str
    path: str
    value: bytes
    callback: str

    @property
    def event(self) -> dict[str, Any]:
        """The value, decoded."""
        decoded: dict[str, Any] = json.loads(self.value)
        return decoded


def kept(record: Any) -> Kept:
    """What a record says, of either topic."""
    headers = {name: value.decode() for name, value in record.headers}
    return Kept(
        headers["bridge_position"],
        None if record.key is None else record.key.decode(),
        headers.get("quarantine_reason", ""),
        headers.get("quarantine_path", ""),
        record.value,
        headers["bridge_callback"],
    )


async def kept_of(bootstrap: str, topics: Sequence[str], marked: str) -> list[Kept]:
    """Every record of these topics whose value holds the mark, by position in its callback."""
    records = [kept(record) for topic in topics for record in await consume_all(bootstrap, topic)]
    found = [record for record in records if marked.encode() in record.value]
    return sorted(found, key=lambda each: (each.callback, int(each.position.partition("/")[0])))
