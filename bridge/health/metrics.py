"""What the bridge measures, read where it arises: the list of docs/metrics.md, in its order."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from bridge.compiled import COMPILED
from bridge.config import Settings
from bridge.delivery.delivery import Delivery
from bridge.observe.metrics import Histogram, Reading
from bridge.receive.callbacks import Callbacks
from bridge.receive.watcher import SecretsWatcher
from bridge.registry.ids import RegisteredIds
from bridge.topics.check import TopicsCheck


def counter(name: str, documentation: str, value: float, **labels: str) -> Reading:
    """A reading of something that only grows."""
    return Reading("counter", name, documentation, value, labels)


def gauge(name: str, documentation: str, value: float, **labels: str) -> Reading:
    """A reading of something that comes and goes."""
    return Reading("gauge", name, documentation, value, labels)


class MetricsCollector:
    """Reads all at one moment.

    Args:
        settings: the whole configuration.
        delivery: running.
        callbacks: the handler.
        schema_ids: the registry's.
        topics: looks at them.
        watchers: of the mounted files of secrets, by the label ``source``.
    """

    def __init__(
        self,
        settings: Settings,
        delivery: Delivery,
        callbacks: Callbacks,
        schema_ids: RegisteredIds,
        *,
        topics: TopicsCheck,
        watchers: Mapping[str, SecretsWatcher],
    ) -> None:
        self._delivery = delivery
        self._schema_ids = schema_ids
        self._callbacks = callbacks
        self._min_free_bytes = settings.spool.min_free_bytes
        self._topics = topics
        self._watchers = watchers
        self._build = {
            "version": version("chatapp-bridge"),
            "python": platform.python_version(),
            "format": settings.events.format,
            "compiled": "yes" if COMPILED else "no",
        }

    def __call__(self) -> Iterator[Reading | Histogram]:
        """Every reading."""
        text = "What runs: the bridge's version, Python's, the format of events, whether its compiled part is in use."
        yield Reading("info", "build", text, 1, self._build)
        yield from self._of_callbacks()
        yield from self._of_reports()
        yield from self._of_kafka()
        yield from self._of_lanes()
        yield from self._of_the_spool()
        yield from self._of_what_is_set_up()

    def _of_callbacks(self) -> Iterator[Reading | Histogram]:
        stats = self._callbacks.stats
        for answer, count in stats.callbacks.items():
            text = "Callbacks by answer: the HTTP status, or aborted by the client."
            yield counter("callbacks", text, count, answer=answer)
        text = "Pushes with a secret that was valid and was removed within the last 30 days: answered 404, and lost."
        yield counter("callbacks_retired_secret", text, stats.retired_secret)
        text = "Pushes with a valid secret from outside of access.allowed_networks: answered 404, and lost."
        yield counter("callbacks_refused_by_network", text, stats.refused_by_network)
        text = (
            "Pushes beyond limits.callbacks_per_second, answered 429: they may be lost, as each comes only twice more."
        )
        yield counter("callbacks_rate_limited", text, stats.rate_limited)
        text = "Requests without a valid secret that were answered 429."
        yield counter("unauthenticated_rate_limited", text, stats.unauthenticated_limited)
        yield stats.ack_latency
        yield gauge("callbacks_active", "Callbacks being handled.", self._callbacks.active)
        yield gauge("in_flight_bytes", "Bytes of bodies being read or waiting.", self._callbacks.in_flight.bytes)
        text = "When a callback was last answered 200, Unix time; 0 before the first."
        yield gauge("last_callback_timestamp_seconds", text, stats.last_callback_at)
        yield gauge("start_timestamp_seconds", "When the bridge began to serve, Unix time.", stats.started_at)
        yield gauge("ready", "1 where a callback could be stored durably now.", float(self._delivery.ready))

    def _of_reports(self) -> Iterator[Reading]:
        counts, stats = self._delivery.counters, self._callbacks.stats
        for outcome, by_status in stats.reports.items():
            for status, count in by_status.items():
                text = "Reports by what made the answer to their callback, and by status."
                yield counter("reports_answered", text, count, outcome=outcome, status=status)
        for path, count in stats.by_path.items():
            yield counter("reports_encoded", "Reports encoded as records, by path.", count, path=path)
        for reason, count in stats.quarantined.items():
            text = "Reports that could not be understood, by reason."
            yield counter("reports_quarantined", text, count, reason=reason)
        yield counter("reports_received", "Reports of bodies that were read whole.", counts.received)
        yield counter("reports_recovered", "Reports found in the spool at the start.", counts.recovered)
        for topic, count in counts.published.items():
            yield counter("reports_published", "Reports acknowledged by Kafka, by topic.", count, topic=topic)
        yield counter("reports_refused", "Reports of callbacks that were answered 503.", counts.refused)
        text = "Reports that Kafka refuses for good, kept in the spool."
        yield counter("reports_dead_lettered", text, counts.dead_lettered)
        text = "Reports of callbacks answered 503 that are on Kafka all the same."
        yield counter("reports_published_after_refusal", text, counts.published_after_refusal)
        yield gauge("reports_waiting", "Reports in memory or in the spool, not yet on Kafka.", self._delivery.waiting)
        yield gauge("oldest_waiting_seconds", "Age of the oldest report that waits.", self._delivery.oldest_seconds)
        text = "Reports that left, a second, over ten seconds."
        yield gauge("drain_reports_per_second", text, self._delivery.drain_per_second)
        text = "Estimate of when nothing waits any more; infinite while more comes than goes."
        yield gauge("backlog_eta_seconds", text, self._delivery.backlog_eta_seconds)

    def _of_kafka(self) -> Iterator[Reading | Histogram]:
        producer = self._delivery.producer
        yield gauge("kafka_up", "1 while the bridge has a producer id and brokers answer.", float(producer.ready))
        yield producer.traffic.latency
        yield producer.traffic.records
        text = "Batches on their way to Kafka."
        yield gauge("kafka_batches_in_flight", text, producer.in_flight)
        for (action, error), count in producer.batches_failed.items():
            text = "Batches that Kafka did not acknowledge, by the bridge's action and by the error."
            yield counter("kafka_batches_failed", text, count, action=action, error=error)
        text = "Lanes whose first batch Kafka refused and has not accepted since."
        yield gauge("kafka_refused_lanes", text, len(self._delivery.refusals))
        text = "Connections for Produce that the bridge began to open."
        yield counter("kafka_connections_opened", text, producer.connections_opened)
        text = "Producer ids received from Kafka: one at the start, another when a broker forgot it or the cluster changed."
        yield counter("kafka_producer_ids", text, producer.cluster.producer_ids)
        text = "1 if batches carry a producer id of Kafka's."
        yield gauge("kafka_idempotent", text, float(producer.cluster.idempotent or False))
        text = "Times that Kafka turned out to be another cluster, or a topic to be created again, by the ids in its metadata."
        yield counter("kafka_identity_changes", text, producer.cluster.identity.changes)
        text = "Times that a partition got a new producer epoch, with sequence numbers from 0."
        yield counter("kafka_epochs_raised", text, producer.sequences.epochs_raised)
        text = "Ids of schemas that records need, by state; while one is missing its records wait."
        yield gauge("schema_ids", text, self._schema_ids.known, state="known")
        yield gauge("schema_ids", text, self._schema_ids.missing, state="missing")

    def _of_lanes(self) -> Iterator[Reading]:
        lanes = self._delivery.all_lanes()
        degraded = sum(lane.degraded for lane in lanes)
        text = "Lanes by state; a degraded one journals what arrives."
        yield gauge("lanes", text, degraded, state="degraded")
        yield gauge("lanes", text, len(lanes) - degraded, state="healthy")
        yield gauge("memory_bytes", "Records in memory, in bytes.", self._delivery.memory.bytes)

    def _of_the_spool(self) -> Iterator[Reading]:
        spool = self._delivery.spool
        if spool is None:
            return
        stats = spool.stats
        yield gauge("spool_writable", "1 where the spool would take an append now.", float(stats.writable))
        yield gauge("spool_rows", "Rows in the spool.", stats.rows)
        yield gauge("spool_bytes", "Size of the spool's files, in bytes.", stats.file_bytes)
        yield gauge("spool_limit_bytes", "Bytes the spool may hold.", self._delivery.spool_limit_bytes)
        yield gauge("spool_free_bytes", "What the file system has left, in bytes.", stats.free_bytes)
        yield gauge("spool_min_free_bytes", "Bytes that must stay free on it.", self._min_free_bytes)
        text = "Age of the oldest append not durable yet."
        yield gauge("spool_oldest_commit_seconds", text, spool.oldest_waiting_seconds)
        yield counter("spool_commits", "Transactions that were written and synced.", stats.commits)
        yield counter("spool_write_errors", "Errors of the disk under the spool.", stats.write_errors)
        yield counter("spool_damaged_rows", "Rows that their checksum did not prove.", stats.damaged_rows)
        text = "Damaged files that lie aside in the spool's directory."
        yield gauge("spool_damaged_files", text, stats.kept_damaged_files)
        text = "0 while the spool's file is checked, or the rows of a damaged file are taken over."
        yield gauge("spool_checked", text, float(stats.checked))
        yield gauge("spool_checked_ratio", "How far the check of the spool's file is.", stats.checked_share)
        yield gauge("spool_dead_letter_reports", "Dead letters in the spool, in reports.", stats.dead_letter_reports)

    def _of_what_is_set_up(self) -> Iterator[Reading]:
        for topic, weak in self._topics.weak.items():
            text = "What is missing or weaker than declared of a topic, as Kafka last told."
            yield gauge("topic_settings_drift", text, len(weak), topic=topic)
        text = "When Kafka last told how the topics are, Unix time; 0 before it did."
        yield gauge("topics_checked_timestamp_seconds", text, self._topics.checked_at)
        text = "1 while the mounted files of secrets can be used; 0: those read before are in force."
        for source, watcher in self._watchers.items():
            yield gauge("secrets_loaded", text, float(watcher.usable), source=source)
        yield gauge("secrets_loaded", text, float(self._delivery.producer.credentials_usable), source="kafka")
