"""How things are, for the person on call: is it safe now, since when, and the figures of the last minutes.

What ``/status.json`` says, and by it the page at ``/`` and ``chatapp-bridge status``. It holds no data of a report: of a
quarantined one its reason, its place and the id of its callback.
"""

import asyncio
import math
import platform
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from operator import sub
from textwrap import shorten
from typing import Any, Final, NamedTuple

from bridge.compiled import COMPILED
from bridge.config import Settings
from bridge.delivery.delivery import Delivery
from bridge.observe.metrics import Histogram, quantile
from bridge.receive.callbacks import Callbacks
from bridge.receive.watcher import SecretsWatcher
from bridge.topics.check import TopicsCheck

SAFE, ON_DISK, REFUSED, REFUSING, STOPPING = "safe", "on_disk", "refused", "refusing", "stopping"
WORDS: Final = {
    SAFE: "Safe",
    ON_DISK: "Safe, on disk",
    REFUSED: "Refused by Kafka",
    REFUSING: "Refusing",
    STOPPING: "Stopping",
}
"""What the verdict is called."""
PROVIDER_SECONDS: Final = 3.0
"""The provider takes a later answer for none."""

_SAMPLES = 300
_DRAIN_SAMPLES, _RATE_SAMPLES, _LATENCY_SAMPLES = 3, 10, 60
_NEAR_FULL_SHARE, _NEAR_LIMIT_SHARE = 0.8, 0.75
# A refusal that is over sooner is not told: brokers change places.
_REFUSED_SECONDS = 10.0
# What is weak of the topics is told in full up to so many things; `chatapp-bridge topics check` has them all.
_TOLD_WEAK = 3
# The same of why there is no connection; the log has it all (kafka_not_available).
_TOLD_CHARACTERS = 300
_LIBRARIES = ("aiokafka", "granian", "litestar")


class _Sample(NamedTuple):
    """Counts at a moment, a second after the one before."""

    at: float
    answers: tuple[int, ...]
    outcomes: tuple[int, ...]
    quarantined: int
    published: int
    waiting: int
    acks: tuple[int, ...]
    batches: tuple[int, ...]
    fronts: dict[int, int]


class HealthReport:
    """Takes a sample a second, and tells how things are when it is asked.

    Args:
        settings: the whole configuration.
        delivery: running.
        callbacks: the handler.
        stopping: whether the service has been told to stop.
        topics: looks at them.
        watchers: of the mounted files of secrets, by their label in the metrics.
    """

    def __init__(
        self,
        settings: Settings,
        delivery: Delivery,
        callbacks: Callbacks,
        stopping: Callable[[], bool],
        *,
        topics: TopicsCheck,
        watchers: Mapping[str, SecretsWatcher],
    ) -> None:
        self._settings = settings
        self._delivery = delivery
        self._callbacks = callbacks
        self._stopping = stopping
        self._topics = topics
        self._watchers = watchers
        self._loop = asyncio.get_running_loop()
        self._samples: deque[_Sample] = deque(maxlen=_SAMPLES + 1)
        self._timer: asyncio.TimerHandle | None = None
        self._verdict, self._since = "", time.time()
        self._versions = {"bridge": version("chatapp-bridge"), "python": platform.python_version()}
        self._versions |= {name: version(name) for name in _LIBRARIES}
        self._versions["compiled"] = "yes" if COMPILED else "no"

    def start(self) -> None:
        """Begin to take samples."""
        self._samples.append(self._sample())
        self._judge()
        self._timer = self._loop.call_later(1.0, self.start)

    def stop(self) -> None:
        """Take no more."""
        if self._timer is not None:
            self._timer.cancel()

    def read(self) -> dict[str, Any]:
        """How things are now; only what JSON has, times in milliseconds since the epoch."""
        verdict, why = self._judge()
        return {
            "verdict": verdict,
            "safe": verdict in {SAFE, ON_DISK},
            "word": WORDS[verdict],
            "why": why,
            "since_ms": round(self._since * 1000),
            "now_ms": time.time_ns() // 1_000_000,
            "started_ms": round(self._callbacks.stats.started_at * 1000),
            "host": platform.node(),
            "notices": self._notices(),
            "ack": self._ack(),
            "callbacks": self._of_callbacks(),
            "reports": self._of_reports(),
            "waiting": self._waiting(),
            "kafka": self._kafka(),
            "lanes": self._lanes(),
            "spool": self._spool(),
            "quarantined": self._quarantined(),
            "history": self._history(),
            "versions": self._versions | {"format": self._settings.events.format},
        }

    # --- the verdict --------------------------------------------------------------------------------------------------

    def _judge(self) -> tuple[str, str]:
        verdict, why = self._judged()
        if verdict != self._verdict:
            self._verdict, self._since = verdict, time.time()
        return verdict, why

    def _judged(self) -> tuple[str, str]:
        if self._stopping():
            return STOPPING, "It was told to stop: what is in flight is finished, what waits stays on disk."
        if not self._delivery.ready:
            known = self._delivery.schema_ids_ready
            away = "Kafka does not take records" if known else "The registry has not told the id of the events' schema"
            away += ", and the spool is full or failed" if self._delivery.spool else ""
            retries = "The provider tries again after 1 and 5 minutes only."
            return REFUSING, f"{away}: callbacks are answered 503. {retries}{self._last_attempt()}"
        taken, refused, _ = self._grown(lambda sample: sample.answers, _RATE_SAMPLES)
        if refused:
            return REFUSING, f"Answered 503 in the last ten seconds: {refused:,} callbacks; {taken:,} were taken."
        by_kafka = self._refused_by_kafka()
        if by_kafka:
            return REFUSED, by_kafka
        on_disk = self._on_disk()
        return (
            (ON_DISK, on_disk) if on_disk else (SAFE, "Every callback is acknowledged by Kafka before it is answered.")
        )

    def _refused_by_kafka(self) -> str:
        """Which errors Kafka refuses batches with; empty if it accepts them, or does not answer."""
        refusals = self._delivery.refusals
        began = min((refusal.since for refusal in refusals), default=math.inf)
        if time.time() - began < _REFUSED_SECONDS or self._delivery.producer.last_error:
            return ""
        since = datetime.fromtimestamp(began, UTC)
        errors = ", ".join(sorted({refusal.error for refusal in refusals}))
        stored = " Their reports are on disk, and the bridge retries." if self._delivery.spool is not None else ""
        lanes = f"{len(refusals)} of {len(self._delivery.all_lanes())} lanes"
        return f"Kafka answers, but has refused the batches of {lanes} since {since:%Y-%m-%d %H:%M:%S} UTC: {errors}.{stored}"

    def _on_disk(self) -> str:
        """Why reports go to disk, or are still there; empty where they don't and aren't."""
        if not self._delivery.producer.ready:
            stored = "what comes is stored on disk, and published when it is back."
            return f"Kafka does not answer: {stored}{self._last_attempt()}"
        if not self._delivery.schema_ids_ready:
            return "The registry has not told the id of the events' schema: they are stored on disk until it does."
        lanes = self._delivery.all_lanes()
        degraded = sum(lane.degraded for lane in lanes)
        rows = self._delivery.spool.stats.rows if self._delivery.spool is not None else 0
        if not (degraded or rows):
            return ""
        slow = self._slow()
        if slow:
            return slow
        before, now = self._before(_DRAIN_SAMPLES).fronts, self._fronts()
        stuck = sum(now.get(lane) == came_at for lane, came_at in before.items())
        published = self._grown(lambda sample: [sample.published], _DRAIN_SAMPLES)[0]
        # Others' records may be published as ever while those on disk are not.
        if rows and (not degraded or (published and stuck < len(before))):
            left = self._delivery.backlog_eta_seconds
            time_left = f", about {_duration(left)} more" if math.isfinite(left) and not stuck else ""
            but = f"; {stuck} of {len(lanes)} lanes wait" if stuck else ""
            return f"Kafka takes records: what is on disk is being published{time_left}{but}."
        what = f"{degraded} of {len(lanes)} lanes wait" if degraded < len(lanes) else "All lanes wait"
        return f"{what} for Kafka: what comes for them is stored on disk."

    def _slow(self) -> str:
        """Say that Kafka takes longer for a batch than lanes wait; empty if it does not."""
        median = self._latency(lambda sample: sample.batches, self._delivery.producer.traffic.latency, 0.5)
        limit = self._settings.delivery.spool_after_ms / 1000
        if median is None or median <= limit:
            return ""
        return (
            f"Kafka is slower than delivery.spool_after_ms ({limit:g} s): it takes {median:.1f} s for a batch. "
            "New reports are stored on disk first, and published as Kafka accepts them."
        )

    def _last_attempt(self) -> str:
        """What the last connection to Kafka failed with: the login, it may be, or a certificate."""
        why = self._delivery.producer.last_error
        return f" The last attempt: {shorten(why, _TOLD_CHARACTERS, placeholder=' …')}." if why else ""

    def _fronts(self) -> dict[int, int]:
        """When the next record of each degraded lane came: where that changes, the lane gets rid of what it has."""
        fronts = ((lane.number, lane.oldest_ms) for lane in self._delivery.all_lanes() if lane.degraded)
        return {number: came_at for number, came_at in fronts if came_at is not None}

    def _notices(self) -> list[dict[str, str]]:
        """What wants a person, beside the verdict: each with the entry of the runbook that says what to do."""
        ack = self._latency(lambda sample: sample.acks, self._callbacks.stats.ack_latency, 0.99)
        limit = self._settings.delivery.ack_deadline_seconds
        near = ack is not None and ack > limit * _NEAR_LIMIT_SHARE
        unknown = "The id of a schema is not known: schema_id_not_found in the log says why."
        found = [
            (near, f"Answers come late: one of a hundred near the limit of {limit:g} s.", "ChatappBridgeAckLatency"),
            (not self._delivery.schema_ids_ready, unknown, "ChatappBridgeSchemaIds"),
            *self._of_the_spool(),
            *self._of_what_is_set_up(),
        ]
        return [{"text": text, "entry": entry} for holds, text, entry in found if holds]

    def _of_the_spool(self) -> list[tuple[bool, str, str]]:
        if self._delivery.spool is None:
            return []
        stats = self._delivery.spool.stats
        full = stats.file_bytes > _NEAR_FULL_SHARE * self._delivery.spool_limit_bytes
        shut = "The spool takes nothing: its bound or the disk's is reached, or the disk fails."
        dead_letters = (
            f"Dead letters: {stats.dead_letter_reports:,} reports that Kafka refuses for good, or whose row is damaged."
        )
        damaged = f"Damaged files that lie aside in the spool: {stats.kept_damaged_files}."
        share = f"{stats.checked_share:.0%} is done"
        unchecked = f"The spool's file is checked: {share}. Until then reports go to Kafka by way of the disk."
        if stats.salvaging:
            unchecked = f"The rows of a damaged file are taken over: {share}. Until then all reports stay on disk."
        return [
            (not stats.writable, shut, "ChatappBridgeSpoolNotWritable"),
            (not stats.checked, unchecked, "ChatappBridgeSpoolUnchecked"),
            (full and stats.writable, "The spool is nearly full.", "ChatappBridgeSpoolFilling"),
            (stats.dead_letter_reports > 0, dead_letters, "ChatappBridgeDeadLetters"),
            (stats.kept_damaged_files > 0, damaged, "ChatappBridgeSpoolDamaged"),
        ]

    def _of_what_is_set_up(self) -> list[tuple[bool, str, str]]:
        weak = [line for lines in self._topics.weak.values() for line in lines]
        more = f"; and {len(weak) - _TOLD_WEAK} more" if len(weak) > _TOLD_WEAK else ""
        topics = f"Missing, or weaker than declared: {'; '.join(weak[:_TOLD_WEAK])}{more}."
        secrets = "A file of secrets can't be used: until a restart those read before hold. secrets_unusable says why."
        kafka = "The files for the connection to Kafka can't be used: no new one can be opened. kafka_not_available says why."
        return [
            (bool(weak), topics, "ChatappBridgeTopicSettingsDrift"),
            (not all(watcher.usable for watcher in self._watchers.values()), secrets, "ChatappBridgeSecretsUnusable"),
            (not self._delivery.producer.credentials_usable, kafka, "ChatappBridgeSecretsUnusable"),
        ]

    # --- figures ------------------------------------------------------------------------------------------------------

    def _ack(self) -> dict[str, float | None]:
        stats = self._callbacks.stats
        return {
            "p50_seconds": self._latency(lambda sample: sample.acks, stats.ack_latency, 0.5),
            "p99_seconds": self._latency(lambda sample: sample.acks, stats.ack_latency, 0.99),
            "limit_seconds": self._settings.delivery.ack_deadline_seconds,
            "provider_seconds": PROVIDER_SECONDS,
        }

    def _of_callbacks(self) -> dict[str, Any]:
        stats = self._callbacks.stats
        taken, refused, other = self._rates(lambda sample: sample.answers)
        return {
            "taken_per_second": taken,
            "refused_per_second": refused,
            "other_per_second": other,
            "answers": {answer: count for answer, count in stats.callbacks.items() if count},
            "active": self._callbacks.active,
            "last_ms": round(stats.last_callback_at * 1000) or None,
        }

    def _of_reports(self) -> list[dict[str, Any]]:
        rates = self._rates(lambda sample: (*sample.outcomes, sample.quarantined))
        now = self._sample()
        totals = (*now.outcomes, now.quarantined)
        names = (*self._callbacks.stats.reports, "quarantined")
        return [
            {"outcome": name, "per_second": rate, "total": total}
            for name, rate, total in zip(names, rates, totals, strict=True)
        ]

    def _waiting(self) -> dict[str, float | None]:
        left = self._delivery.backlog_eta_seconds
        return {
            "reports": self._delivery.waiting,
            "oldest_seconds": self._delivery.oldest_seconds,
            "drain_per_second": self._delivery.drain_per_second,
            "backlog_eta_seconds": left if math.isfinite(left) else None,
        }

    def _kafka(self) -> dict[str, Any]:
        producer = self._delivery.producer
        return {
            "up": producer.ready,
            "servers": self._settings.kafka.bootstrap_servers,
            "p99_seconds": self._latency(lambda sample: sample.batches, producer.traffic.latency, 0.99),
            "in_flight": producer.in_flight,
            "connections_opened": producer.connections_opened,
            "idempotent": producer.cluster.idempotent,
        }

    def _lanes(self) -> list[dict[str, Any]]:
        return [
            {"topic": topic, "lanes": [{"degraded": lane.degraded, "reports": lane.depth} for lane in lanes]}
            for topic, lanes in self._delivery.lanes.items()
        ]

    def _spool(self) -> dict[str, Any] | None:
        if self._delivery.spool is None:
            return None
        stats = self._delivery.spool.stats
        return {
            "writable": stats.writable,
            "rows": stats.rows,
            "bytes": stats.file_bytes,
            "limit_bytes": self._delivery.spool_limit_bytes,
            "free_bytes": stats.free_bytes,
            "keep_free_bytes": self._settings.spool.min_free_bytes,
            "dead_letter_reports": stats.dead_letter_reports,
            "checked_share": stats.checked_share,
        }

    def _quarantined(self) -> list[dict[str, Any]]:
        return [fault._asdict() for fault in reversed(self._callbacks.stats.faults)]

    def _history(self) -> dict[str, list[float | None]]:
        """A value a second, the latest last."""
        pairs = list(zip(self._samples, list(self._samples)[1:], strict=False))
        bounds = self._callbacks.stats.ack_latency.bounds
        return {
            "taken": [new.answers[0] - old.answers[0] for old, new in pairs],
            "refused": [new.answers[1] - old.answers[1] for old, new in pairs],
            "p99_seconds": [quantile(0.99, bounds, _difference(new.acks, old.acks)) for old, new in pairs],
            "waiting": [new.waiting for _, new in pairs],
        }

    # --- samples ------------------------------------------------------------------------------------------------------

    def _sample(self) -> _Sample:
        stats = self._callbacks.stats
        taken, refused = stats.callbacks["200"], stats.callbacks["503"]
        return _Sample(
            self._loop.time(),
            (taken, refused, sum(stats.callbacks.values()) - taken - refused),
            tuple(sum(counts.values()) for counts in stats.reports.values()),
            sum(stats.quarantined.values()),
            sum(self._delivery.counters.published.values()),
            self._delivery.waiting,
            tuple(stats.ack_latency.counts),
            tuple(self._delivery.producer.traffic.latency.counts),
            self._fronts(),
        )

    def _before(self, samples: int) -> _Sample:
        return self._samples[max(0, len(self._samples) - 1 - samples)]

    def _grown(self, of: Callable[[_Sample], Sequence[int]], samples: int) -> list[int]:
        """By how much counts grew over so many samples, and since."""
        return _difference(of(self._sample()), of(self._before(samples)))

    def _rates(self, of: Callable[[_Sample], Sequence[int]]) -> list[float]:
        first, last = self._before(_RATE_SAMPLES), self._samples[-1]
        seconds = last.at - first.at
        return [grown / seconds if seconds else 0.0 for grown in _difference(of(last), of(first))]

    def _latency(self, of: Callable[[_Sample], Sequence[int]], histogram: Histogram, share: float) -> float | None:
        """Over the last minute; None where nothing was measured."""
        return quantile(share, histogram.bounds, self._grown(of, _LATENCY_SAMPLES))


def _difference(new: Sequence[int], old: Sequence[int]) -> list[int]:
    return list(map(sub, new, old))


def _duration(seconds: float) -> str:
    """In words, roughly."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, round(seconds))} s"
