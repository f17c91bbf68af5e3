"""The ids by which the bridge recognises the cluster and its topics.

A producer id belongs to the cluster that gave it. A Kafka that was created again without its data gives producer ids
from 0 again, so it may give one bridge the id that another bridge still holds from the former cluster. Brokers would take
the records of one bridge for repeats of the other's. A recreated Kafka may have the former address and, where the cluster
id is configured, the former cluster id. Its topics always have other ids.

So it is the same cluster if at least one topic still has the id that it had. The cluster id decides only where a broker
gives no topic ids. A topic that alone was deleted and created again needs nothing: the cluster goes on with its producer
ids, and the new partitions take any first sequence number.
"""

import structlog

from bridge.kafka.errors import NONE
from bridge.kafka.metadata import Metadata

log = structlog.get_logger(__name__)


class Identity:
    """The ids that the cluster and its topics had last.

    Attributes:
        changes: how many times the cluster or a topic had another id than before.
    """

    def __init__(self) -> None:
        self._cluster_id = ""
        self._topic_ids: dict[str, str] = {}
        self.changes = 0

    def is_confirmed_by(self, metadata: Metadata) -> bool:
        """Whether a broker that answers this belongs to the cluster. An answer without any topic shows nothing."""
        return any(topic.code == NONE for topic in metadata.topics) and not self._is_other(metadata)

    def take(self, metadata: Metadata) -> bool:
        """Keep the ids of this answer; return whether it is of another cluster than the answers before."""
        is_other, shown = self._is_other(metadata), metadata.topic_ids
        if is_other:
            self.changes += 1
            log.warning(
                "cluster_changed", former_cluster_id=self._cluster_id, cluster_id=metadata.cluster_id,
                former_topic_ids=self._topic_ids, topic_ids=shown,
                remedy="the bridge goes on with a new producer id; records that the former cluster had are not in this one",
            )  # fmt: skip
            self._topic_ids = {}
        recreated = {topic for topic, now in shown.items() if self._topic_ids.get(topic, now) != now}
        self.changes += bool(recreated)
        for topic in sorted(recreated):
            log.warning("topic_recreated", topic=topic, former_id=self._topic_ids[topic], topic_id=shown[topic])
        self._cluster_id = metadata.cluster_id or self._cluster_id
        self._topic_ids |= shown
        return is_other

    def _is_other(self, metadata: Metadata) -> bool:
        shown = metadata.topic_ids
        if self._topic_ids and shown:
            return not self._topic_ids.items() & shown.items()
        return bool(self._cluster_id and metadata.cluster_id) and self._cluster_id != metadata.cluster_id
