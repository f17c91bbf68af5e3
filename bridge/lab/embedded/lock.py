"""What is embedded, pinned in a lock file each.

``jars.lock`` is Kafka, ``registry.lock`` the registry, ``serde.lock`` a deserialiser of Avro, ``connect.lock`` Kafka Connect,
``converter.lock`` its converter of Avro.

One line an artifact: ``SHA256 BYTES GROUP:NAME:VERSION``, with ``:PACKAGING:CLASSIFIER`` before the version of what is
no plain jar; ``#`` begins a comment. Where they come from is not written there: the resolver's configured repositories
are asked, and the hash decides whether what came is what was meant. ``python -m bridge.lab.embedded.pin`` writes the files
anew.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

LOCK_FILE = Path(__file__).with_name("jars.lock")
REGISTRY_LOCK_FILE = Path(__file__).with_name("registry.lock")
SERDE_LOCK_FILE = Path(__file__).with_name("serde.lock")
CONNECT_LOCK_FILE = Path(__file__).with_name("connect.lock")
CONVERTER_LOCK_FILE = Path(__file__).with_name("converter.lock")
COMPILER = "org.eclipse.jdt:ecj"


@dataclass(frozen=True)
class Artifact:
    """One pinned file.

    Attributes:
        sha256: Of the whole file, hexadecimal.
        size_bytes: Of the whole file.
        group: Maven's groupId.
        name: Maven's artifactId.
        version: Exact, never a range.
        packaging: What kind of file it is: its name's end.
        classifier: Which of several files of that kind; empty for the main one.
    """

    sha256: str
    size_bytes: int
    group: str
    name: str
    version: str
    packaging: str = "jar"
    classifier: str = ""

    @property
    def coordinate(self) -> str:
        """``group:name:version``, as resolvers and people write it; what is no plain jar says so before the version."""
        kind = f"{self.packaging}:{self.classifier}:" if (self.packaging, self.classifier) != ("jar", "") else ""
        return f"{self.group}:{self.name}:{kind}{self.version}"

    @property
    def file_name(self) -> str:
        """The file's name; unique within the lock."""
        classifier = f"-{self.classifier}" if self.classifier else ""
        return f"{self.name}-{self.version}{classifier}.{self.packaging}"

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
            group, name, *kind, version = coordinate.split(":")
            artifacts.append(Artifact(sha256, int(size), group, name, version, *kind))
    if len({artifact.file_name for artifact in artifacts}) != len(artifacts):
        msg = "two artifacts of the lock share a file name"
        raise ValueError(msg)
    return tuple(artifacts)


def read_lock(file: Path = LOCK_FILE) -> tuple[Artifact, ...]:
    """The artifacts of one of this package's own lock files: Kafka's unless named."""
    return parse_lock(file.read_text(encoding="ascii"))


def digest(artifacts: tuple[Artifact, ...]) -> str:
    """Twelve hexadecimal digits that differ whenever any artifact does: names the directory in the cache."""
    return hashlib.sha256("\n".join(artifact.line() for artifact in artifacts).encode()).hexdigest()[:12]
