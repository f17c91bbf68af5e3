"""The load generator, ``benchmarks/load``, from Python."""

import asyncio
import itertools
import subprocess
import time
from typing import NamedTuple

import msgspec

from bench.build import BENCHMARKS, go_program

CONNECTIONS = 32
# Every run has ids of its own, also across runs of this program.
_seeds = itertools.count(time.time_ns() // 1_000_000 % 10_000_000_000)


class Load(msgspec.Struct, frozen=True):
    """What it prints."""

    requests: int
    ok: int
    reports_ok: int
    other: dict[str, int]
    unsent: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    cpu_seconds: float
    reports_acknowledged: int


class Style(NamedTuple):
    """How bodies are written.

    Attributes:
        text: the share of the reports that has text beyond plain ASCII, and a field that nobody knows.
        lenient: whether each body has to be read leniently: trailing commas, and a raw line break in each report.
    """

    text: float = 1 / 3
    lenient: bool = False


USUAL, PLAIN, LENIENT = Style(), Style(text=0), Style(lenient=True)


async def push(urls: list[str], reports: int, seconds: float, rate: float = 0.0, style: Style = USUAL) -> Load:
    """Callbacks of so many reports, at ``rate`` a second or, where that is 0, as fast as they are answered."""
    program = await asyncio.to_thread(go_program, BENCHMARKS / "load")
    flags = {
        "url": ",".join(urls), "reports": reports, "connections": CONNECTIONS, "seconds": seconds, "rate": rate,
        "seed": next(_seeds), "text": style.text, "lenient": str(style.lenient).lower(),
    }  # fmt: skip
    command = [str(program), *(f"-{name}={value}" for name, value in flags.items())]
    done = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=Load)
