"""Whether the topics are as safe as declared: asked at the start, and now and then while the bridge runs."""

import asyncio
import time
from typing import Never

import structlog

from bridge.config import Settings
from bridge.errors import BridgeError, TopicsError
from bridge.topics.inspect import Finding, inspect_all, missing

log = structlog.get_logger(__name__)

# For topics.check = refuse: a Kafka that takes longer to answer doesn't answer.
_ANSWER_SECONDS = 10.0
# Between attempts while no Kafka answers; no longer than topics.check_seconds.
_AGAIN_SECONDS = 10.0


class TopicsCheck:
    """What is missing or weaker than declared, as Kafka last said.

    Args:
        settings: the whole configuration.

    Attributes:
        weak: of each topic what is wrong, a line each; nothing until Kafka has answered.
        checked_at: when that was, Unix time; 0 before.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._failure = ""
        self._reported: set[tuple[str, str]] = set()
        self.weak: dict[str, list[str]] = {settings.topics.status: [], settings.topics.quarantine: []}
        self.checked_at = 0.0

    async def refuse_weak(self, stop_requested: asyncio.Event) -> None:
        """For ``topics.check = refuse``: no start where Kafka answers and a topic is not as declared.

        Args:
            stop_requested: ends the wait when it is set, as a start that is not wanted any more.

        Raises:
            TopicsError: names what is wrong.
        """
        looking, ending = asyncio.create_task(inspect_all(self._settings)), asyncio.create_task(stop_requested.wait())
        await asyncio.wait([looking, ending], timeout=_ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in (looking, ending):
            task.cancel()
        try:
            weak = [line for finding in (await looking).values() for line in finding.weaker]
        except (TopicsError, asyncio.CancelledError) as error:
            self._unchecked(str(error) or "Kafka did not answer in time")
            return
        except BridgeError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever Kafka answers is no reason not to start
            self._not_understood(error)
            return
        if weak:
            external = self._settings.topics.manage == "external"
            todo = "ask the owner of the topics to change it" if external else "change it (chatapp-bridge topics plan)"
            raise TopicsError(f"{'; '.join(weak)}; {todo}, or set topics.check=warn")

    async def run(self) -> Never:
        """Look again and again; say once what became weak, and what was mended."""
        every = self._settings.topics.check_seconds
        while True:
            try:
                found = await inspect_all(self._settings)
            except BridgeError as error:
                self._unchecked(str(error))
                await asyncio.sleep(min(_AGAIN_SECONDS, every))
            except Exception as error:  # noqa: BLE001 - whatever Kafka answers, it is looked at again
                self._not_understood(error)
                await asyncio.sleep(every)
            else:
                self._take(found)
                await asyncio.sleep(every)

    def _take(self, findings: dict[str, Finding]) -> None:
        found = {topic: finding.weaker for topic, finding in findings.items()}
        for topic, now in found.items():
            before = self.weak.get(topic, [])
            for line in sorted(set(now) - set(before)):
                log.error("topic_drift_detected", what=line, remedy="chatapp-bridge topics plan")
            # Of a topic that is not there any more nothing was mended.
            for line in sorted(set(before) - set(now)) if now != [missing(topic)] else ():
                log.info("topic_drift_resolved", what=line)
        reported = {
            *(
                ("topic_setting_not_shown", f"topic {topic}, {each}")
                for topic in findings
                for each in findings[topic].not_shown
            ),
            *(("topic_setting_external", line) for finding in findings.values() for line in finding.left_to_owner),
        }
        for event, line in sorted(reported - self._reported):
            log.warning(event, what=line)
        self._reported = reported
        self.weak, self.checked_at, self._failure = found, time.time(), ""

    def _not_understood(self, error: Exception) -> None:
        self._unchecked(f"Kafka's answer was not understood: {error!r}")

    def _unchecked(self, why: str) -> None:
        if why != self._failure:
            log.warning("topics_unchecked", reason=why)
        self._failure = why
