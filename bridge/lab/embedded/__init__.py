"""A real, embedded Apache Kafka and Schema Registry for the demo and the tests, on a Java that pip brings.

The extra ``chatapp-bridge[embedded]`` is all it needs; nothing of the service is imported here.
"""

from bridge.lab.embedded.cluster import EmbeddedKafka
from bridge.lab.embedded.java import JavaResult, compile_java, run_java, spawn_java
from bridge.lab.embedded.metadata import Partition, View
from bridge.lab.embedded.node import Node
from bridge.lab.embedded.registry import EmbeddedRegistry

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
