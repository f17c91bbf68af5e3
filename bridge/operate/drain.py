"""``chatapp-bridge spool drain``: publish everything in a spool, and say truly what became of it.

Exit code 0 means that the spool is empty: no row waits, there are no dead letters and no damaged files. Whoever deletes a volume
after a drain goes by it, so everything else is 1.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any, Final

from bridge import config
from bridge.delivery.delivery import Delivery
from bridge.errors import SpoolFailed
from bridge.listener import bind
from bridge.operate import console
from bridge.spool.stats import SpoolStats

_PROGRESS_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.05
_STOP_SECONDS: Final = 10.0


async def drain(
    settings: config.Settings,
    schema_ids: Callable[[config.Settings], Any],
    timeout_seconds: float | None,
    report_seconds: float | None = None,
) -> int:
    """Publish what is in the spool; the exit code.

    Args:
        settings: the whole configuration, with the spool on.
        schema_ids: makes a delivery's schema ids of the settings.
        timeout_seconds: stop after that long; None: never.
        report_seconds: serve the number of rows as a metric meanwhile, and for that long once it is 0; None: not at all.

    Raises:
        ConfigurationError: the admin port is taken.
        SpoolError: the spool can't be used, or it does not name the topics of its rows.
    """
    delivery = Delivery(settings, schema_ids(settings))
    await delivery.start()
    try:
        async with nullcontext() if report_seconds is None else _reporting(settings.server, delivery):
            code = await _until_empty(delivery, timeout_seconds)
            if report_seconds is not None and code == console.EXIT_DONE:
                await asyncio.sleep(report_seconds)
            return code
    finally:
        await delivery.stop(asyncio.get_running_loop().time() + _STOP_SECONDS)


@asynccontextmanager
async def _reporting(server: config.Server, delivery: Delivery) -> AsyncIterator[None]:
    """Answer a scrape as the bridge of this spool did: an alert of reports that were left behind ends by the zero."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            assert delivery.spool is not None  # noqa: S101 - it was enabled
            name = "chatapp_bridge_spool_rows"
            body = f"# TYPE {name} gauge\n{name} {delivery.spool.stats.rows}\n".encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()

    bound = bind(server.admin_host, server.admin_port, "server.admin_host", "server.admin_port")
    listener = await asyncio.start_server(answer, sock=bound)
    try:
        yield
    finally:
        listener.close()  # not wait_closed: from Python 3.12 on it waits for connections, and an idle one may stay open


async def _until_empty(delivery: Delivery, timeout_seconds: float | None) -> int:
    spool, loop = delivery.spool, asyncio.get_running_loop()
    assert spool is not None  # noqa: S101 - it was enabled
    before, began = spool.stats, loop.time()
    console.show(f"{before.recovered_reports_at_start:,} reports to publish")
    shown_at = began
    while not spool.stats.checked or spool.stats.rows or spool.stats.pending_deletes or delivery.waiting:
        await asyncio.sleep(_LOOK_SECONDS)
        _require_topics(delivery, spool.stats)
        now = loop.time()
        if now >= shown_at + _PROGRESS_SECONDS:
            shown_at = now
            console.show(f"{_progress(delivery, spool.stats, before)}{_of_kafka(_error_now(delivery))}")
        if timeout_seconds is not None and now - began > timeout_seconds:
            console.say(
                f"not done in {timeout_seconds:g} s: {spool.stats.reports:,} reports are left, and stay there"
                f"{_dead_letters(spool.stats, before)}{_of_kafka(_error_now(delivery))}"
            )
            _say_what_is_kept(spool.stats, before)
            return console.EXIT_FAILED
    console.show(
        f"{_progress(delivery, spool.stats)} in {loop.time() - began:.1f} s; nothing waits any more"
        f"{_dead_letters(spool.stats, before)}"
    )
    return _say_what_is_kept(spool.stats, before, delivery.last_refusal)


def _require_topics(delivery: Delivery, stats: SpoolStats) -> None:
    lost = set(stats.lanes) - {lane.number for lane in delivery.all_lanes()}
    if lost and stats.checked:
        raise SpoolFailed(f"the spool does not tell the topics of lanes {sorted(lost)}: `spool export` has the rows")


def _progress(delivery: Delivery, stats: SpoolStats, before: SpoolStats | None = None) -> str:
    published = sum(delivery.counters.published.values())
    checked = "" if stats.checked else f"; {stats.checked_share:.0%} of the spool's file is checked"
    more = _dead_letters(stats, before) if before else ""
    return f"{published:,} of {stats.recovered_reports_at_start:,} published{more}{checked}"


def _error_now(delivery: Delivery) -> str:
    """Why there is no connection to Kafka, or what it refuses; empty while it takes records."""
    return delivery.producer.last_error or ", ".join(sorted({refusal.error for refusal in delivery.refusals}))


def _of_kafka(error: str) -> str:
    return f"; last error of Kafka: {error}" if error else ""


def _dead_letters(stats: SpoolStats, before: SpoolStats) -> str:
    more = stats.dead_letter_reports - before.dead_letter_reports
    return f"; {more:,} became dead letters" if more else ""


def _say_what_is_kept(stats: SpoolStats, before: SpoolStats, error: str = "") -> int:
    """Name what is in the spool beside rows that wait; 1 if there is anything, as it would be lost with the volume."""
    if stats.dead_letter_rows:
        more = stats.dead_letter_rows - before.dead_letter_rows
        console.say(
            f"the spool is not empty: {stats.dead_letter_rows:,} rows ({stats.dead_letter_reports:,} reports) are dead letters, "
            f"{more:,} of them since this drain began{_of_kafka(error)}. `spool show` lists them; do not delete the volume"
        )
    if stats.kept_damaged_files:
        console.say(
            f"the spool is not empty: {stats.kept_damaged_files:,} damaged files are in damaged/, and may hold reports; "
            "copy them away before you delete the volume"
        )
    return console.EXIT_FAILED if stats.dead_letter_rows or stats.kept_damaged_files else console.EXIT_DONE
