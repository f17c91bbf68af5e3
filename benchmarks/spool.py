"""Measures the spool on this machine's disk: ``python -m benchmarks.spool [directory] [--rows 1000000]``.

Prints appends by group size and concurrency, with an idle loop and beside a busy one, drains, and what a large spool
costs: memory, time to open, delays of appends while it is deleted, size afterwards. Records are of 1.2 kB, the size of a
status event with its headers.
"""

import argparse
import asyncio
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bridge.record import Record
from bridge.spool.rows import SpoolRow
from bridge.spool.spool import Spool

_LANES = 50
_VALUE = os.urandom(900)
_HEADERS = [(f"ce_{name}", os.urandom(30)) for name in ("id", "source", "type", "time", "subject")]
_MAX_BYTES = 32 << 30
_FEW_ROWS = 100


def _row(seq: int, records: int) -> SpoolRow:
    record = Record("chatapp.status.v1", b"message-%020d" % seq, _VALUE, _HEADERS, 1_700_000_000_000)
    return SpoolRow(seq % _LANES, seq, records, [record] * records)


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _appends(spool: Spool, first: int, concurrent: int, records: int, seconds: float) -> tuple[int, float]:
    """Rows appended by ``concurrent`` callers, each waiting for its own; and the seconds it took."""
    seq, began = first, time.perf_counter()
    deadline = began + seconds

    async def caller() -> None:
        nonlocal seq
        while time.perf_counter() < deadline:
            seq += 1
            await spool.append([_row(seq, records)])

    await asyncio.gather(*(caller() for _ in range(concurrent)))
    return seq - first, time.perf_counter() - began


async def _busy(until: asyncio.Event) -> None:
    """Keep the loop's thread computing, as parsing does, in slices of about 0.2 ms."""
    while not until.is_set():
        sum(range(8_000))
        await asyncio.sleep(0)


async def _until(condition: Callable[[], bool], seconds: float = 600.0) -> None:
    """Look every few milliseconds; after that long go on all the same."""
    deadline = time.perf_counter() + seconds
    while not condition() and time.perf_counter() < deadline:
        await asyncio.sleep(0.005)


async def _drain(spool: Spool) -> tuple[int, float]:
    rows, began = 0, time.perf_counter()
    for lane in list(spool.stats.lanes):
        after = 0
        while got := await spool.read(lane, after, max_bytes=1 << 20):
            rows += len(got)
            after = got[-1].seq
            spool.delete_through(lane, after)
    await _until(lambda: not (spool.stats.pending_deletes or spool.stats.rows))
    return rows, time.perf_counter() - began


async def _open(directory: Path) -> Spool:
    return await Spool.open(directory, max_bytes=_MAX_BYTES, min_free_bytes=0, on_event=print)


async def _small(directory: Path) -> None:
    print("loop   records/row   appends at once   rows/s appended   rows/commit   rows/s drained")
    seq = 0
    for busy, records, concurrent in itertools.product((False, True), (1, 10), (1, 10, 100)):
        spool = await _open(directory)
        stop = asyncio.Event()
        task = asyncio.create_task(_busy(stop)) if busy else None
        rows, took = await _appends(spool, seq, concurrent, records, 2.0)
        seq += rows
        commits = spool.stats.commits
        drained, drain_took = await _drain(spool)
        stop.set()
        if task is not None:
            await task
        print(
            f"{'busy' if busy else 'idle'} {records:13} {concurrent:17} {rows / took:17,.0f} "
            f"{rows / max(1, commits):13.1f} {drained / drain_took:16,.0f}"
        )
        await spool.close(10)


async def _fill(spool: Spool, rows: int, records: int) -> float:
    began = time.perf_counter()
    for start in range(0, rows, 5_000):
        await spool.append([_row(seq, records) for seq in range(start + 1, min(rows, start + 5_000) + 1)])
    return time.perf_counter() - began


async def _large(directory: Path, rows: int) -> None:
    spool = await _open(directory)
    before = _rss_bytes()
    took = await _fill(spool, rows, 1)
    print(f"\n{rows:,} rows: filled in {took:.1f} s, {rows / took:,.0f} rows/s; RSS +{_mib(_rss_bytes() - before)}")
    await asyncio.sleep(0.2)
    print(f"  file {_mib(spool.stats.file_bytes)} for {_mib(spool.stats.bytes)} of bodies")
    await spool.close(60)
    before, began = _rss_bytes(), time.perf_counter()
    spool = await _open(directory)
    print(f"  opened in {time.perf_counter() - began:.2f} s, page cache warm; RSS +{_mib(_rss_bytes() - before)}")
    delays = []
    began = time.perf_counter()
    for lane in list(spool.stats.lanes):
        spool.delete_through(lane, rows)
    seq = rows
    while spool.stats.rows > _FEW_ROWS or spool.stats.pending_deletes:
        seq += 1
        at = time.perf_counter()
        await spool.append([SpoolRow(seq % _LANES, seq, 1, _row(seq, 1).records)])
        spool.delete_through(seq % _LANES, seq)
        delays.append(time.perf_counter() - at)
    took = time.perf_counter() - began
    delays.sort()
    print(
        f"  deleted in {took:.1f} s ({rows / took:,.0f} rows/s); appends meanwhile: {len(delays):,}, "
        f"median {statistics.median(delays) * 1000:.1f} ms, 99 % {delays[int(len(delays) * 0.99)] * 1000:.1f} ms, "
        f"worst {delays[-1] * 1000:.1f} ms"
    )
    began = time.perf_counter()
    await _until(lambda: spool.stats.file_bytes <= 1 << 20, 30)
    print(f"  file afterwards: {spool.stats.file_bytes >> 10} KiB, after {time.perf_counter() - began:.1f} s")
    await spool.close(60)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, help="where to spool; a new one in the temporary directory")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--switch-seconds", type=float, default=sys.getswitchinterval())
    args = parser.parse_args()
    sys.setswitchinterval(args.switch_seconds)
    directory = Path(tempfile.mkdtemp(dir=args.directory))
    try:
        await _small(directory / "small")
        await _large(directory / "large", args.rows)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    asyncio.run(_main())
