"""The checks in their order, each with a limit of its own and all within one, and the removal of what they made."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from bridge.config import Settings
from bridge.errors import ConfigurationError, ConnectionEnded
from bridge.kafka.connection import reason
from bridge.kafka.wire import CONNECTION_FAILURES
from bridge.operate import console
from bridge.operate.doctor import publishing, reach, replaying, sizes, topics
from bridge.operate.doctor.findings import Finding, Outcome, Report
from bridge.operate.doctor.removal import clean_up
from bridge.operate.doctor.session import NotTried, Session, not_tried

_CLEAN_UP_SECONDS: Final = 10.0
_INTERRUPTED_SECONDS: Final = 0.7


class Check(NamedTuple):
    """One check: what the progress line and the finding call it, how, and its limit in seconds."""

    name: str
    run: Callable[[Session], Awaitable[Finding]]
    seconds: float


CHECKS: Final = (
    Check("connection", reach.connection, 30.0),
    Check("brokers", reach.brokers, 20.0),
    Check("topics", topics.declared, 20.0),
    Check("producer id", publishing.producer_id, 10.0),
    Check("test topic", topics.prepare, 40.0),
    Check("write", publishing.write, 30.0),
    Check("compression", publishing.codecs, 30.0),
    Check("sizes", sizes.sizes, 40.0),
    Check("latency", publishing.latency, 20.0),
    Check("read back", replaying.read, 30.0),
    Check("transaction", replaying.transaction, 30.0),
    Check("groups", replaying.groups, 30.0),
)


class Interrupted(Exception):  # noqa: N818 - a result, not a failure
    """The examination was cancelled; has the report of what was done until then."""

    def __init__(self, report: Report) -> None:
        super().__init__("interrupted")
        self.report = report


async def examine(settings: Settings, topic: str | None, seconds: float) -> Report:
    """Perform every check, one after another, and remove what they made.

    Args:
        settings: as configured.
        topic: the topic for the test records; None to make one.
        seconds: the limit for all checks together.

    Raises:
        ConfigurationError: the topic is one of the bridge's, or a mounted secret or a certificate can't be used.
        Interrupted: the task was cancelled.
    """
    session, findings = Session(settings, topic), list[Finding]()
    until, reached = asyncio.get_running_loop().time() + seconds, True
    try:
        try:
            for check in CHECKS:
                finding = await _performed(check, session, until)
                session.apply(finding.set)
                findings.append(finding)
        except reach.UnreachableError as error:
            reached = False
            findings.append(error.finding)
        finally:
            if not _cancelled():
                await clean_up(session, _CLEAN_UP_SECONDS)
    except asyncio.CancelledError as cancelled:
        await clean_up(session, _INTERRUPTED_SECONDS)
        raise Interrupted(_report(session, findings)) from cancelled
    return _report(session, findings, reached=reached)


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _report(session: Session, findings: list[Finding], *, reached: bool = True) -> Report:
    return Report(findings, session.differing(findings), list(session.left.values()), reached)


async def _performed(check: Check, session: Session, until: float) -> Finding:
    loop = asyncio.get_running_loop()
    began = loop.time()
    limit = min(check.seconds, until - began)
    if limit <= 0:
        return not_tried(check.name, "the time for all checks was over; a longer one is --timeout SEC")
    console.say(f"doctor: {check.name} ...")
    try:
        async with asyncio.timeout(limit):
            return await check.run(session)
    except NotTried as missing:
        return not_tried(check.name, str(missing))
    except TimeoutError:
        return Finding(
            check.name, Outcome.BROKEN, f"no answer within {loop.time() - began:.0f} s", "Look at the brokers."
        )
    except ConnectionEnded:
        return Finding(check.name, Outcome.BROKEN, "the broker closed the connection", "Look at the broker's log.")
    except (ConfigurationError, reach.UnreachableError):
        raise
    except CONNECTION_FAILURES as error:
        return Finding(check.name, Outcome.BROKEN, reason(error))
