"""Make starts of the broker faster: an archive of Java's loaded and linked classes, made once on a machine.

With it a broker is up in 0.7 s instead of 1.7 s (two cores), which counts where three start at once and
tests restart them. It is made by running one broker for a moment; the JVM checks on every start that the
archive fits its build, flags and class path, and goes without it otherwise. So it is only ever a gain, and
failing to make it is no error.
"""

import logging
import tempfile
from pathlib import Path

from rich.console import Console

from bridge.errors import EmbeddedError
from bridge.lab.embedded.download import Libraries
from bridge.lab.embedded.java import run_java, startup_archive
from bridge.lab.embedded.node import BROKER_MAIN, CONTROLLER, Node, Shared
from bridge.lab.embedded.ports import Port

MAKE_SECONDS = 60.0
log = logging.getLogger(__name__)


async def ensure_archive(libraries: Libraries, console: Console | None = None) -> None:
    """Make the archive where there is none yet: some 8 s, once. Of two that do, the last one's stays."""
    final = startup_archive(libraries)
    if final.exists():
        return
    (console or Console(stderr=True)).print("making starts of Apache Kafka faster, once", highlight=False)
    try:
        with tempfile.TemporaryDirectory(dir=final.parent, prefix="archive-", ignore_cleanup_errors=True) as place:
            made = await _make(libraries, Path(place))
            if made.exists():
                made.replace(final)
    except (EmbeddedError, OSError):
        log.debug("no archive was made; starts are slower", exc_info=True)


async def _make(libraries: Libraries, place: Path) -> Path:
    """Run one broker that notes what it loads, then make the archive of it; the path of the archive.

    In two steps: left to itself the JVM would start the second one as it ends, out of our reach.
    """
    notes, made = place / "notes", place / "made.aot"
    node = Node(1, place / "node", Port(), {"CLIENT": "PLAINTEXT"})
    options = ("-Xmx400m", "-XX:AOTMode=record", f"-XX:AOTConfiguration={notes}")
    voters = f"1@{node.address(CONTROLLER)}"
    node.join(Shared("5L6g3nShT-eMCtK--X86sw", voters, {"CLIENT": "PLAINTEXT"}, {}, options, libraries))
    try:
        await node.start()
        await node.stop(MAKE_SECONDS)
    finally:
        await node.kill()
        node.release()
    await run_java(
        BROKER_MAIN,
        jvm_options=["-XX:AOTMode=create", f"-XX:AOTConfiguration={notes}", f"-XX:AOTCache={made}"],
        timeout_seconds=MAKE_SECONDS,
    )
    return made
