"""A real, embedded Apache Kafka and Schema Registry for the demo and the tests, on a Java that pip brings.

The extra ``chatapp-bridge[embedded]`` is all it needs; nothing of the service is imported here.
"""

from bridge.embedded.cluster import EmbeddedKafka
from bridge.embedded.java import JavaResult, compile_java, run_java, spawn_java
from bridge.embedded.metadata import Partition, View
from bridge.embedded.node import Node
from bridge.embedded.registry import EmbeddedRegistry

__all__ = [
    "EmbeddedKafka",
    "EmbeddedRegistry",
    "JavaResult",
    "Node",
    "Partition",
    "View",
    "compile_java",
    "run_java",
    "spawn_java",
]
