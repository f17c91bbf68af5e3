"""Who means harm: each attack on a bridge that serves, and good callbacks beside it that are answered as ever.

What a single odd body, header or slow client gets is in ``test_service_http.py``; here many come, or what hides in them counts.
``BRIDGE_LONG=1`` holds ten thousand idle connections instead of one thousand.
"""

import asyncio
import json
import os
import resource
import socket
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.apart import run_apart, running_apart
from support.bridge_process import BridgeProcess
from support.callbacks import SUCCESS, body, kept_of, make_topics, mark, report
from support.raw_http import HOST, Answer, chunked, connection, exchange, read_answer, request
from support.topics import until

LONG = os.environ.get("BRIDGE_LONG") == "1"
IDLE = 10_000 if LONG else 1_000
# Long enough that all of them are open at once.
HEADER_SECONDS = 30.0 if LONG else 4.0
BODY_SECONDS = 1.0
# Of this process and of the bridge, beside the connections.
OTHER_FILES = 200
IDLE_BYTES = 64 * 1024
PROVIDER_SECONDS = 3.0
BESIDE = "beside"


@pytest.fixture(scope="module", autouse=True)
def open_files() -> Iterator[int]:
    """As many as the hard limit allows, for this process and what it starts; the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def topics(kafka_bootstrap: str) -> tuple[str, str]:
    """For the bridge of this module alone."""
    return run_apart(make_topics(kafka_bootstrap))


@pytest.fixture(scope="module")
def bridge(
    kafka_bootstrap: str, topics: tuple[str, str], open_files: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BridgeProcess]:
    """One bridge, which lives through all of it."""
    assert open_files
    settings = {
        "log.level": "info",
        "limits.header_read_seconds": HEADER_SECONDS,
        "limits.body_read_seconds": BODY_SECONDS,
    }
    process = BridgeProcess(kafka_bootstrap, tmp_path_factory.mktemp("bridge"), settings, topics)
    with running_apart(process, "callback_failed", "request_failed"):
        yield process


@asynccontextmanager
async def good_beside(bridge: BridgeProcess, *, shed: bool = False) -> AsyncIterator[None]:
    """Good callbacks one after the other while it lasts, and one after it: each is taken before the provider gives up.

    Args:
        bridge: that is attacked.
        shed: While it lasts some may be refused instead, in time: the loop was held by a body for longer than a turn may last.
    """
    slowest, count, over = 0.0, 0, False

    async def push() -> None:
        nonlocal slowest, count
        while not over or count == 0:
            began = time.monotonic()
            answer = await bridge.post(body(report(f"{BESIDE}-{count}")))
            slowest = max(slowest, time.monotonic() - began)
            assert answer.body == SUCCESS or (shed and answer.status == 503), answer
            count += 1

    pushing = asyncio.create_task(push())
    try:
        yield
    finally:
        over = True
        await pushing
    assert (await bridge.post(body(report(BESIDE)))).body == SUCCESS
    assert slowest < PROVIDER_SECONDS, f"the slowest of {count} took {slowest} s"


async def answers_to(bridge: BridgeProcess, data: bytes) -> list[Answer]:
    """Every answer on one connection, until the server ends it or has nothing more to say."""
    found = []
    async with connection(bridge.port) as (reader, writer):
        writer.write(data)  # and no end: at one the server forgets what it has not begun
        while (answer := await asyncio.wait_for(read_answer(reader), HEADER_SECONDS + 10)) is not None:
            found.append(answer)
    return found


# --- request smuggling ------------------------------------------------------------------------------------------------


def head(*lines: bytes) -> bytes:
    """Of a POST, with lines as they are."""
    return b"\r\n".join([b"POST %s HTTP/1.1", b"Host: " + HOST.encode(), *lines]) + b"\r\n\r\n"


CHUNKS = b"2\r\n[]\r\n0\r\n\r\n"
TE = b"Transfer-Encoding: chunked"
# In each, one who reads the framing otherwise than RFC 9112 says takes what follows, %s, for a request.
SMUGGLING = {
    "length, then chunks": head(b"Content-Length: 400", TE) + CHUNKS + b"%s",
    "chunks, then length": head(TE, b"Content-Length: 400") + CHUNKS + b"%s",
    "chunks, and a length that ends within": head(b"Content-Length: 4", TE) + b"fff\r\n%s",
    "two lengths": head(b"Content-Length: 2", b"Content-Length: 400") + b"[]%s",
    "two lengths, the longer first": head(b"Content-Length: 400", b"Content-Length: 2") + b"[]%s",
    "two lengths in a list": head(b"Content-Length: 2, 400") + b"[]%s",
    "a signed length": head(b"Content-Length: +2") + b"[]%s",
    "a length in hexadecimals": head(b"Content-Length: 0x2") + b"[]%s",
    "a length beyond 64 bits": head(b"Content-Length: 18446744073709551618") + b"[]%s",
    "a name that ends with a space": head(b"Content-Length : 2") + b"[]%s",
    "a name after a tab": head(b"X: y", b"\tContent-Length: 2") + b"[]%s",
    "a folded line": head(b"Transfer-Encoding:", b" chunked") + CHUNKS + b"%s",
    "a coding that is nearly chunked": head(b"Transfer-Encoding: xchunked") + CHUNKS + b"%s",
    "chunked, and then another": head(b"Transfer-Encoding: chunked, identity") + CHUNKS + b"%s",
    "a coding after a control character": head(b"Transfer-Encoding: \x0bchunked") + CHUNKS + b"%s",
    "a NUL in a header": head(b"X: a\0b", b"Content-Length: 2") + b"[]%s",
    "a bare CR in a header": head(b"X: a\rContent-Length: 2") + b"[]%s",
    "a chunk's size in C's notation": head(TE) + b"0x2\r\n[]\r\n0\r\n\r\n%s",
    "a negative chunk": head(TE) + b"-2\r\n[]\r\n0\r\n\r\n%s",
    "a chunk beyond 64 bits": head(TE) + b"10000000000000002\r\n[]\r\n0\r\n\r\n%s",
    "a chunk's extension with a bare LF": head(TE) + b"2;x\n[]\r\n0\r\n\r\n%s",
    "a chunk's size with a bare LF": head(TE) + b"2\n[]\r\n0\r\n\r\n%s",
    "a chunk longer than its size": head(TE) + b"2\r\n[]x\r\n0\r\n\r\n%s",
    "a chunk without its end": head(TE) + b"2\r\n[]0\r\n\r\n%s",
}


async def test_nothing_hides_behind_an_unclear_end(
    bridge: BridgeProcess, kafka_bootstrap: str, topics: tuple[str, str]
) -> None:
    """Nothing in the shadow of such a request is answered, or becomes an event; the connection ends."""
    hidden, before = mark(), await bridge.metrics()
    push = request("POST", bridge.path, body(report(hidden)))

    async def statuses_of(template: bytes) -> list[int]:
        return [answer.status for answer in await answers_to(bridge, template % (bridge.path.encode(), push))]

    async with good_beside(bridge):
        found = await asyncio.gather(*map(statuses_of, SMUGGLING.values()))
    answered = dict(zip(SMUGGLING, found, strict=True))
    assert {case: statuses for case, statuses in answered.items() if len(statuses) > 1} == {}
    assert {status for statuses in answered.values() for status in statuses} <= {200, 400, 408, 501}
    assert [] == [each for each in await kept_of(kafka_bootstrap, topics, hidden) if not each.reason]
    assert before["chatapp_bridge_in_flight_bytes"] == (await bridge.metrics())["chatapp_bridge_in_flight_bytes"] == 0


async def test_what_is_no_http_gets_one_answer_at_most(bridge: BridgeProcess) -> None:
    """Another protocol's first bytes, half a line, NULs: the connection ends."""
    garbage = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-x\r\n",
        bytes(10_000),
        b"\r\n" * 10_000,
        b"GET " + b"a" * 1_000_000,
        b"POST / HTTP/9.9\r\n\r\n",
        b"POST " + bridge.path.encode() + b"\r\n\r\n",
    ]
    async with good_beside(bridge):
        for data in garbage:
            try:
                found = await answers_to(bridge, data)
            except OSError:  # reset while it was being sent
                continue
            assert [answer.status for answer in found if answer.status not in {400, 404, 414, 431, 505}] == [], data[
                :20
            ]
            assert len(found) <= 1


# --- many, and slow ---------------------------------------------------------------------------------------------------


async def test_a_slow_crowd_keeps_nobody_waiting(bridge: BridgeProcess) -> None:
    """Hundreds who send a byte now and then, of headers or a body: each is ended in time, whatever it still sends."""
    crowd = 100
    slow_head = request("POST", bridge.path)[:-2]
    slow_body = request("POST", bridge.path, b"[", [("Content-Length", "1000")])
    slow_chunks = request("POST", bridge.path, chunked(b"[", final=False), [("Transfer-Encoding", "chunked")])

    async def trickle(first: bytes, more: bytes) -> int | None:
        async with connection(bridge.port) as (reader, writer):
            writer.write(first)
            reading = asyncio.create_task(read_answer(reader))
            while not (await asyncio.wait([reading], timeout=0.2))[0]:
                writer.write(more)
            answer = reading.result()
            return None if answer is None else answer.status

    async with good_beside(bridge), asyncio.timeout(HEADER_SECONDS + 10):
        found = await asyncio.gather(
            *(trickle(slow_head, b"x: y\r\n") for _ in range(crowd)),
            *(trickle(slow_body, b" ") for _ in range(crowd)),
            *(trickle(slow_chunks, b"1\r\n \r\n") for _ in range(crowd)),
        )
    assert set(found[:crowd]) <= {None, 408, 431}
    assert set(found[crowd:]) == {408}


def memory_of(pid: int) -> int:
    """Bytes of it that are in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def is_open(idle: socket.socket) -> bool:
    """Whether the other side has not ended it."""
    try:
        return idle.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


async def test_idle_connections_keep_nobody_waiting(
    bridge: BridgeProcess, open_files: int, record_property: Callable[[str, object], None]
) -> None:
    """A thousand that say nothing, or ten thousand: good callbacks are taken, memory is bounded, they are ended in time."""
    count = min(IDLE, open_files - OTHER_FILES)
    record_property("idle connections", count)
    if count < IDLE:
        warnings.warn(f"only {count} idle connections: the hard limit of open files is {open_files}", stacklevel=1)
    idle: list[socket.socket] = []

    async def all_ended() -> bool:
        return not any(map(is_open, idle))

    before = memory_of(bridge.pid)
    try:
        async with good_beside(bridge):
            while len(idle) < count:
                idle.append(await asyncio.to_thread(socket.create_connection, (HOST, bridge.port), 10))
                idle[-1].setblocking(False)
            for _ in range(20):
                assert (await bridge.post(body(report(BESIDE)))).body == SUCCESS
            assert all(map(is_open, idle)), "they have to be open at once, or nothing was shown"
            assert memory_of(bridge.pid) - before < count * IDLE_BYTES + 32 * 2**20
            async with asyncio.timeout(HEADER_SECONDS + 20):
                await until(all_ended)
    finally:
        for each in idle:
            each.close()


async def test_a_flood_of_headers_is_refused(bridge: BridgeProcess) -> None:
    """Many at once, each with headers beyond the limits, or without an end: 431, or the end of the connection."""
    thousand = [(f"x-{number}", "v" * 10) for number in range(1000)]
    floods = [
        request("POST", bridge.path, b"[]", thousand),
        request("POST", bridge.path, b"[]", [("cookie", "c" * 400)] * 60),
        request("POST", bridge.path, b"[]", [("x", "v" * 60_000)]),
        request("POST", bridge.path)[:-2] + b"x: y\r\n" * 200_000,
        request("GET", bridge.path + "?" + "q" * 60_000),
    ]

    async def sent(data: bytes) -> int:
        try:
            answer = await exchange(bridge.port, data, end=True)
        except OSError:  # reset while it was being sent
            return 0
        return 0 if answer is None else answer.status

    # The end of the connection may overtake the answer.
    assert 431 in [await sent(data) for data in floods * 4]
    # So many at once may take longer than headers have time.
    async with good_beside(bridge):
        found = await asyncio.gather(*(sent(data) for data in floods * 20))
    assert set(found) <= {0, 405, 414, 431}


# --- what a body holds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP", "x"])
async def test_a_compressed_body_is_refused_unread(bridge: BridgeProcess, coding: str) -> None:
    """415 before a byte is read, so that a bomb costs nothing; identity is none."""
    refused = await exchange(
        bridge.port, request("POST", bridge.path, b"", [("Content-Encoding", coding), ("Content-Length", "1000")])
    )
    assert refused is not None
    assert (refused.status, refused.json()["code"]) == (415, 415)
    assert (await bridge.post(b"[]", headers=[("Content-Encoding", "identity")])).body == SUCCESS


def member(name: str, value: str, marked: str) -> bytes:
    """A body of one report with such a member."""
    return b'[{"MessageId":"%s","Status":"Sent","%s":%s}]' % (marked.encode(), name.encode(), value.encode())


# What it is, and the reason it is quarantined for; empty: it is an event.
HEAVY: dict[str, tuple[Callable[[str], bytes], str]] = {
    "nested 100,000 deep": (lambda m: member("x", "[" * 100_000 + "]" * 100_000, m), "too_deep"),
    "nested 1,000,000 deep, no end": (lambda m: member("x", "[" * 1_000_000, m)[:-2], "not_json"),
    "objects nested 100,000 deep": (lambda m: member("x", '{"a":' * 100_000 + "1" + "}" * 100_000, m), "too_deep"),
    "100,000 keys": (
        lambda m: json.dumps([report(m) | {f"k{number}": number for number in range(100_000)}]).encode(),
        "too_large",
    ),
    "a key 100,000 times": (lambda m: member("x", "1" + ',"x":1' * 100_000, m), ""),
    "an integer of a million digits": (lambda m: member("Timestamp", "9" * 1_000_000, m), "too_large"),
    "an integer of 100,000 digits": (lambda m: member("Timestamp", "9" * 100_000, m), ""),
    "an exponent of 100,000 digits": (lambda m: member("Timestamp", "1e" + "9" * 100_000, m), ""),
    "5,000 items that are none": (lambda m: b"[" + b"1," * 5_000 + body(report(m))[1:], ""),
    "a million items": (lambda m: b"[" + b"1," * 1_000_000 + b'"%s"]' % m.encode(), "too_many_items"),
    "invalid UTF-8 for a megabyte": (
        lambda m: member("x", "@", m).replace(b"@", b'"' + b"\xff" * 1_000_000 + b'"'),
        "invalid_utf8",
    ),
    "two million quotes": (lambda m: member("x", '""' * 1_000_000, m), "undecodable"),
    "a surrogate alone": (lambda m: member("x", '"\\ud800"', m), ""),
    "100,000 surrogates alone": (lambda m: member("x", '"' + "\\ud800" * 100_000 + '"', m), ""),
    "a raw line break 100,000 times": (lambda m: member("x", '"' + "\n" * 100_000 + '"', m), ""),
    "overlong UTF-8": (lambda m: member("x", "@", m).replace(b"@", b'"\xc0\xaf"'), "invalid_utf8"),
}


@pytest.mark.parametrize("case", HEAVY)
async def test_a_heavy_body_keeps_nobody_waiting_and_is_kept(
    bridge: BridgeProcess, kafka_bootstrap: str, topics: tuple[str, str], case: str
) -> None:
    """Whatever it costs to read, it is an event or quarantined."""
    marked = mark()
    make, reason = HEAVY[case]
    pushed = make(marked)
    async with good_beside(bridge, shed=True):
        answer = await bridge.post(pushed)
    assert answer.body == SUCCESS
    (found,) = await kept_of(kafka_bootstrap, topics, marked)
    assert found.reason == reason
    whole = {"not_json", "too_many_items"}
    assert found.value == (found.value if not reason else pushed if reason in whole else pushed[1:-1])


# --- paths ------------------------------------------------------------------------------------------------------------


async def test_no_trick_with_the_path_opens_it(bridge: BridgeProcess) -> None:
    """Another path is 404, or no request at all; what is decoded to the address, or has a slash too many, needs its secret."""
    root, secret = "/callbacks/chatapp/status", bridge.secret or ""
    opened = [
        f"{root}//{secret}",
        f"/{root}/{secret}",
        f"{root}/{secret}//",
        f"{root}/{secret}#x",
        bridge.path, bridge.path + "/", bridge.path + "?x=/../", f"http://{HOST}{bridge.path}",
        f"{root}%2f{secret}", f"{root}/%{ord(secret[0]):x}{secret[1:]}",
    ]  # fmt: skip
    tricks = [
        f"{root}/../status/{secret}",
        f"{root}/./{secret}",
        f"{root}/{secret}/..",
        f"{root}/{secret}/.",
        f"{root}/%2e%2e/status/{secret}",
        f"{root}/{secret}%00",
        f"{root}/{secret}\0",
        f"{root.upper()}/{secret}",
        f"{root}/{secret.upper()}",
        f"{root}/{secret};x=y",
        f"{root};/{secret}",
        f"{root}/{secret}%20",
        f"{root}\\{secret}",
        f"{root}/{secret}\xe9",
        f"{root}/%ff%fe",
        f"{root}/%c0%af{secret}",
        f"{root}/%",
        f"{root}/%zz",
        "/livez",
        "/metrics",
        "/%6detrics",
        f"{root}/../../../metrics",
        "//",
        "/.",
        "/..",
        "*",
        "x",
        "",
        f"{root}/" + "x" * 5000,
        f"{root}/%61{secret[1:]}x",
    ]
    async with good_beside(bridge):
        found = {path: await exchange(bridge.port, request("POST", path, b"[]")) for path in tricks}
        taken = {path for path, answer in found.items() if answer is not None and answer.status not in {400, 404, 414}}
        assert taken == set()
        for path in opened:
            answer = await exchange(bridge.port, request("POST", path, b"[]"))
            assert answer is not None
            assert answer.status == 200, path
            wrong = await exchange(bridge.port, request("POST", path.replace(secret[1:], "x" + secret[2:]), b"[]"))
            assert wrong is not None
            assert wrong.status == 404, path
