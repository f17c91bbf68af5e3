"""The jars of the embedded Kafka, pinned: what ``jars.lock`` beside this module holds.

One line an artifact: ``SHA256 BYTES GROUP:NAME:VERSION``; ``#`` begins a comment. Where they come from is
not written there: the resolver's configured repositories are asked, and the hash decides whether what came
is what was meant. ``python -m bridge.embedded.pin`` writes the file anew.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

LOCK_FILE = Path(__file__).with_name("jars.lock")
COMPILER = "org.eclipse.jdt:ecj"


@dataclass(frozen=True)
class Artifact:
    """One pinned jar.

    Attributes:
        sha256: Of the whole file, hexadecimal.
        size_bytes: Of the whole file.
        group: Maven's groupId.
        name: Maven's artifactId.
        version: Exact, never a range.
    """

    sha256: str
    size_bytes: int
    group: str
    name: str
    version: str

    @property
    def coordinate(self) -> str:
        """``group:name:version``, as resolvers and people write it."""
        return f"{self.group}:{self.name}:{self.version}"

    @property
    def file_name(self) -> str:
        """The jar's name; unique within the lock."""
        return f"{self.name}-{self.version}.jar"

    @property
    def is_compiler(self) -> bool:
        """True for the Java compiler, which is kept off the broker's class path."""
        return f"{self.group}:{self.name}" == COMPILER

    def line(self) -> str:
        """The artifact as the lock file has it."""
        return f"{self.sha256} {self.size_bytes:>8} {self.coordinate}"


def parse_lock(text: str) -> tuple[Artifact, ...]:
    """Read the text of a lock file, in its order.

    Raises:
        ValueError: A line has another form, or two artifacts would share a file name.
    """
    artifacts = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            sha256, size, coordinate = line.split()
            group, name, version = coordinate.split(":")
            artifacts.append(Artifact(sha256, int(size), group, name, version))
    if len({artifact.file_name for artifact in artifacts}) != len(artifacts):
        msg = "two artifacts of the lock share a file name"
        raise ValueError(msg)
    return tuple(artifacts)


def read_lock() -> tuple[Artifact, ...]:
    """The artifacts of this package's own lock file."""
    return parse_lock(LOCK_FILE.read_text(encoding="ascii"))


def digest(artifacts: tuple[Artifact, ...]) -> str:
    """Twelve hexadecimal digits that differ whenever any artifact does: names the directory in the cache."""
    return hashlib.sha256("\n".join(artifact.line() for artifact in artifacts).encode()).hexdigest()[:12]
