"""Measures callbacks on this machine: ``python benchmarks/callbacks.py [--sizes 1,10,100]``.

A real Kafka of one node, the bridge, and the simulated provider that pushes as fast as its connections take it, at several
numbers of reports in a callback. Beside it, in turn and with the same bodies, the same server with a handler that reads the
body and answers: what the server and the pusher would do if the bridge did nothing. All of it shares this machine's cores, and
the pusher, being Python, takes its part of them; so the ratios say more than the rates.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from bridge.embedded import EmbeddedKafka
from bridge.embedded.java import spawn
from bridge.embedded.ports import HOST, Port
from bridge.simulate.campaign import Mix
from bridge.simulate.ledger import Summary
from bridge.simulate.run import SimulateOptions, simulate

PATH = "/callbacks/chatapp/status"
START_SECONDS = 30.0
WARM_SECONDS = 2.0
CONNECTIONS = 32


class Figures(NamedTuple):
    """Of one run."""

    requests_per_second: float
    reports_per_second: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, summary: Summary) -> "Figures":
        """From what the pusher saw; a run in which something was not acknowledged at once measures nothing."""
        if summary.acknowledged_first != summary.pushes:
            sys.exit(
                f"{summary.pushes - summary.acknowledged_first} callbacks were not acknowledged: {summary.answers}"
            )
        latency, seconds = summary.latency, summary.duration_seconds
        return cls(
            summary.pushes / seconds, summary.reports / seconds, latency.p50_seconds * 1e3, latency.p99_seconds * 1e3
        )


async def _empty(_scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    answer = b'{"code":0,"msg":"Success"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _serve_empty(port: int) -> None:
    server = Server(
        _empty,
        address=HOST,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
    )
    await server.serve()


@asynccontextmanager
async def _running(arguments: list[str], port: int, log: Path) -> AsyncIterator[None]:
    """A program that listens on a port, killed at the end."""
    with log.open("wb") as out:
        process = spawn([sys.executable, *arguments], stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not await _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                said = await asyncio.to_thread(log.read_text)
                sys.exit(f"{arguments} does not listen:\n{said}")
            await asyncio.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


async def _push(url: str, size: int, seconds: float) -> Figures:
    options = SimulateOptions(
        url=url, duration_seconds=seconds, size=(size, size), mix=Mix.plain(), connections=CONNECTIONS
    )
    return Figures.of(await simulate(options))


async def _compare(urls: tuple[str, str], size: int, seconds: float, rounds: int) -> list[Figures]:
    """Of each address the median round, by requests a second; in turn, so that a busy moment of the machine strikes both."""
    for url in urls:
        await _push(url, size, WARM_SECONDS)
    measured = [[await _push(url, size, seconds) for url in urls] for _ in range(rounds)]
    return [sorted(runs)[rounds // 2] for runs in zip(*measured, strict=True)]


async def _measure(sizes: list[int], seconds: float, rounds: int, directory: Path) -> None:
    bridge, admin, empty = Port(), Port(), Port()
    async with EmbeddedKafka() as kafka:
        settings = {
            "server.host": HOST,
            "server.port": bridge.number,
            "server.admin_host": HOST,
            "server.admin_port": admin.number,
            "access.allow_open": "true",
            "kafka.bootstrap_servers": kafka.bootstrap_servers,
            "spool.directory": directory / "spool",
        }
        options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        topics = [sys.executable, "-m", "bridge", "topics", "apply", "--dev", *options]
        await asyncio.to_thread(subprocess.run, topics, check=True, stdout=subprocess.DEVNULL)
        async with (
            _running(["-m", "bridge", "serve", *options], bridge.number, directory / "bridge.log"),
            _running([__file__, "--serve-empty", str(empty.number)], empty.number, directory / "empty.log"),
        ):
            what = f"the median of {rounds} rounds of {seconds:g} s"
            print(f"{os.cpu_count()} cores, {CONNECTIONS} connections, Kafka of one node; {what}\n")
            print(f"{'reports':>7}  {'':14}  {'requests/s':>10}  {'reports/s':>10}  {'p50 ms':>7}  {'p99 ms':>7}")
            urls = f"http://{HOST}:{empty.number}{PATH}", f"http://{HOST}:{bridge.number}{PATH}"
            for size in sizes:
                peer, ours = await _compare(urls, size, seconds, rounds)
                _print(size, "empty handler", peer)
                _print(size, "bridge", ours)
                share = ours.requests_per_second / peer.requests_per_second
                slower = ours.p50_ms / peer.p50_ms, ours.p99_ms / peer.p99_ms
                print(f"{'':7}  {'ratio':14}  {share:>9.0%}  {'':11}  {slower[0]:>6.1f}x  {slower[1]:>6.1f}x\n")


def _print(size: int, name: str, of: Figures) -> None:
    rates = f"{of.requests_per_second:>10,.0f}  {of.reports_per_second:>10,.0f}"
    print(f"{size:>7}  {name:14}  {rates}  {of.p50_ms:>7.2f}  {of.p99_ms:>7.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="of each, the median of which is shown (default: 3)")
    parser.add_argument("--sizes", default="1,10,100", metavar="N,…", help="reports in a callback (default: 1,10,100)")
    parser.add_argument("--serve-empty", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_empty:
        uvloop.run(_serve_empty(options.serve_empty))
        return
    with tempfile.TemporaryDirectory(prefix="chatapp-bridge-bench-") as directory:
        uvloop.run(
            _measure([int(size) for size in options.sizes.split(",")], options.seconds, options.rounds, Path(directory))
        )


if __name__ == "__main__":
    main()
