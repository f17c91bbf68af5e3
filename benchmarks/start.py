"""Measures a start on a large spool and a slow disk: ``python benchmarks/start.py DIRECTORY [--damage]``.

Fills a spool of that size in DIRECTORY, drops it from the page cache, and starts the bridge on it, without a Kafka. The
bridge may read so many megabytes a second from the disk: as root, with cgroups v1; else the disk is as fast as it is, and
a line says so. Printed: the seconds from the start of the process to the first 200, how many of the 100 callbacks a
second after that were answered otherwise, how long the answers took, and how far the check of the file came meanwhile.
``--damage`` overwrites the file's first page, so that all of it has to be salvaged.
"""

import argparse
import asyncio
import os
import time
from collections import Counter
from pathlib import Path

import httpx

from bridge.lab.demo.process import HOST, Bridge
from bridge.lab.embedded.ports import Port
from bridge.record import Record
from bridge.spool.format import DATABASE, PAGE_BYTES
from bridge.spool.rows import SpoolRow
from bridge.spool.spool import Spool

LANES, ROWS_EACH = 12, 200
VALUE = b'{"filler":"' + b"x" * 900 + b'"}'
LAYOUT = '[["chatapp.status.v1",12],["chatapp.status.quarantine.v1",3]]'
THROTTLE = Path("/sys/fs/cgroup/blkio")
CALLBACKS_PER_SECOND = 100


async def fill(directory: Path, gib: float) -> None:
    """A spool of rows of a kilobyte each, in the order in which a bridge writes them: the lanes in turn."""
    spool = await Spool.open(directory, max_bytes=1 << 40, min_free_bytes=0)
    await spool.set_meta("lanes", LAYOUT)
    seq = 0
    while spool.stats.file_bytes < gib * (1 << 30):
        rows = []
        for _ in range(ROWS_EACH):
            seq += 1
            record = Record(
                "chatapp.status.v1", b"message-%d" % seq, VALUE, [("ce_id", b"%d" % seq)], 1_790_000_000_000
            )
            rows += [SpoolRow(lane, seq, 1, [record]) for lane in range(LANES)]
        await spool.append(rows)
    await spool.close(60)
    print(f"{seq * LANES:,} rows, {(directory / DATABASE).stat().st_size / 1e9:.1f} GB")


def forget(file: Path) -> None:
    """Drop it from the page cache."""
    fd = os.open(file, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def throttled(directory: Path, megabytes: int) -> Path | None:
    """A control group whose processes read no faster from the directory's disk; None where there can be none."""
    device = directory.stat().st_dev
    group = THROTTLE / f"start-{os.getpid()}"
    try:
        group.mkdir()
        limit = f"{os.major(device)}:{os.minor(device)} {megabytes * 1_000_000}"
        (group / "blkio.throttle.read_bps_device").write_text(limit)
    except OSError as error:
        print(f"the disk is not slowed down: {error}")
        return None
    return group


async def push(client: httpx.AsyncClient, url: str, number: int) -> tuple[str, float]:
    """One callback: its answer and its seconds."""
    began = time.monotonic()
    report = {"MessageId": f"new-{number}", "Status": "Sent", "Timestamp": 1790000000000}
    try:
        answer = str((await client.post(url, json=[report])).status_code)
    except httpx.ConnectError:
        answer = "refused"
    return answer, time.monotonic() - began


async def measure(directory: Path, read_mb: int, seconds: float) -> None:
    """Start, push, print."""
    port, admin_port = Port(), Port()
    settings = [
        "kafka.bootstrap_servers=127.0.0.1:1",
        f"spool.directory={directory}",
        f"spool.max_bytes={1 << 40}",
        "spool.min_free_bytes=0",
        "access.allow_unauthenticated=true",
        f"server.host={HOST}",
        f"server.port={port.number}",
        f"server.admin_host={HOST}",
        f"server.admin_port={admin_port.number}",
    ]
    bridge = Bridge(settings, os.environ, admin_port.number, directory.parent / "bridge.log")
    group = throttled(directory, read_mb)
    forget(directory / DATABASE)
    tasks: list[asyncio.Task[tuple[str, float]]] = []
    began = time.monotonic()
    bridge.start()
    if group is not None:
        (group / "cgroup.procs").write_text(str(bridge.pid))
    url = f"http://{HOST}:{port.number}/callbacks/chatapp/status"
    async with httpx.AsyncClient(timeout=10, limits=httpx.Limits(max_connections=1000)) as client:
        while (await push(client, url, 0))[0] != "200":
            await asyncio.sleep(0.01)
        print(f"{time.monotonic() - began:.2f} s to the first 200")
        for number in range(int(seconds * CALLBACKS_PER_SECOND)):
            tasks.append(asyncio.create_task(push(client, url, number)))
            await asyncio.sleep(1 / CALLBACKS_PER_SECOND)
        answers = await asyncio.gather(*tasks)
        metrics = (await client.get(f"http://{HOST}:{admin_port.number}/metrics")).text
    took = sorted(seconds for _, seconds in answers)
    share = float(
        next(line.split()[1] for line in metrics.splitlines() if line.startswith("chatapp_bridge_spool_checked_ratio"))
    )
    print(f"answers {dict(Counter(answer for answer, _ in answers))}, p50 {took[len(took) // 2]:.3f} s, ", end="")
    print(f"p99 {took[len(took) * 99 // 100]:.3f} s, at most {took[-1]:.3f} s; {share:.0%} of the file was checked")
    began = time.monotonic()
    await bridge.stop()
    print(f"{time.monotonic() - began:.2f} s to stop")
    if group is not None:
        group.rmdir()


def main() -> None:
    """Fill, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="an empty one, on the disk that is to be measured")
    parser.add_argument("--gib", type=float, default=3.0, help="size of the spool (default: %(default)s)")
    parser.add_argument("--read-mb", type=int, default=20, help="of the disk a second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of pushing (default: %(default)s)")
    parser.add_argument("--damage", action="store_true", help="overwrite the first page of the file")
    options = parser.parse_args()
    spool = options.directory.absolute() / "spool"
    asyncio.run(fill(spool, options.gib))
    if options.damage:
        with (spool / DATABASE).open("r+b") as database:
            database.write(bytes(PAGE_BYTES))
    asyncio.run(measure(spool, options.read_mb, options.seconds))


if __name__ == "__main__":
    main()
