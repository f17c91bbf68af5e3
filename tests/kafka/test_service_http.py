"""What a body becomes, who may push, and how much: on a bridge that serves, over HTTP written by hand, byte for byte.

The table of "What a body becomes" row by row, each with what is on Kafka afterwards; and every limit, set low.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.apart import run_apart, running_apart
from support.bridge_process import SECRET, BridgeProcess
from support.callbacks import SUCCESS, Kept, body, eventually, kept_of, make_topics, mark, report
from support.raw_http import Answer, chunked, connection, exchange, read_answer, request

BODY_BYTES, BODY_SECONDS, HEADER_SECONDS = 200_000, 0.7, 1.0
LIMITS = {
    "limits.body_bytes": BODY_BYTES,
    "limits.in_flight_bytes": 2 * BODY_BYTES,
    "limits.body_read_seconds": BODY_SECONDS,
    "limits.header_read_seconds": HEADER_SECONDS,
    "limits.header_bytes": 2048,
    "limits.header_count": 12,
    "kafka.max_record_bytes": 16_384,
}
SECOND, THIRD = "the-second-of-two-secrets-in-force", "one-that-is-mounted-beside-them"
CHUNKED = ("Transfer-Encoding", "chunked")
WRONG = "/callbacks/chatapp/status/" + "x" * len(SECRET)
KeptOf = Callable[[str], Awaitable[list[Kept]]]


@pytest.fixture(scope="module")
def topics(kafka_bootstrap: str) -> tuple[str, str]:
    """For the bridge of this module alone."""
    return run_apart(make_topics(kafka_bootstrap))


@pytest.fixture(scope="module")
def bridge(
    kafka_bootstrap: str, topics: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BridgeProcess]:
    """One bridge without a spool, its limits low, three secrets in force."""
    directory = tmp_path_factory.mktemp("bridge")
    (directory / "secrets").write_text(f"# for the rotation\n{THIRD}\n")
    settings = {"spool.enabled": False, "access.path_secrets_file": directory / "secrets", **LIMITS}
    process = BridgeProcess(kafka_bootstrap, directory, settings, topics, secrets=(SECRET, SECOND))
    with running_apart(process):
        yield process


@pytest.fixture
def marked() -> str:
    """What tells this test's records from others'."""
    return mark()


@pytest.fixture
def kept(kafka_bootstrap: str, topics: tuple[str, str]) -> KeptOf:
    """Everything on Kafka that holds a mark."""
    return partial(kept_of, kafka_bootstrap, topics)


def is_success(answer: Answer | None) -> bool:
    """Whether it is the one answer that the provider takes for success, to the byte."""
    assert answer is not None
    return (answer.status, answer.headers["content-type"], answer.body) == (200, "application/json", SUCCESS)


def is_refusal(answer: Answer | None, status: int) -> bool:
    """Whether it is an error of this status in the shape of the success."""
    assert answer is not None
    assert (status, "application/json") == (answer.status, answer.headers["content-type"]), answer
    said = answer.json()
    return bool(said == {"code": status, "msg": said["msg"]} and said["msg"])


# --- what is kept -----------------------------------------------------------------------------------------------------


def spaced(marked: str) -> bytes:
    """White space wherever JSON has it."""
    return json.dumps([report(marked)], indent=4).replace("\n", "\r\n\t").encode()


EVENTS: dict[str, Callable[[str], tuple[bytes, list[tuple[str, str]]]]] = {
    "an array": lambda m: (body(report(m), report(m, "Read")), [("1/2", "SENT"), ("2/2", "READ")]),
    "a lone object": lambda m: (json.dumps(report(m)).encode(), [("1/1", "SENT")]),
    "a byte order mark": lambda m: (b"\xef\xbb\xbf" + body(report(m)), [("1/1", "SENT")]),
    "a byte order mark before a lone object": lambda m: (
        b"\xef\xbb\xbf" + json.dumps(report(m)).encode(),
        [("1/1", "SENT")],
    ),
    "white space": lambda m: (spaced(m), [("1/1", "SENT")]),
    "a status nobody knows": lambda m: (body(report(m, "Played")), [("1/1", "UNKNOWN")]),
}


@pytest.mark.parametrize("case", EVENTS)
async def test_reports_become_events(bridge: BridgeProcess, kept: KeptOf, marked: str, case: str) -> None:
    """Each report is one record: key its MessageId, its place in the callback in a header; the answer is the exact success."""
    pushed, expected = EVENTS[case](marked)

    assert is_success(await bridge.post(pushed))
    found = await kept(marked)
    assert expected == [(each.position, each.event["status"]) for each in found]
    assert {marked} == {each.key for each in found}


QUARANTINED: dict[str, Callable[[str], tuple[bytes, bytes, str, str, bool]]] = {
    # the body, the raw bytes that are kept, reason, path, whether the key is readable
    "no MessageId": lambda m: (b'[{"Status":"Sent","To":"%s"}]' % m.encode(), b"", "no_message_id", "$[0].MessageId", False),
    "no Status": lambda m: (b'[{"MessageId":"%s"}]' % m.encode(), b"", "no_status", "$[0].Status", True),
    "no object": lambda m: (b'["%s"]' % m.encode(), b"", "not_an_object", "$[0]", False),
    "invalid UTF-8": lambda m: (
        b'[{"MessageId":"%s","Status":"Sent","To":"\xc3\x28"}]' % m.encode(), b"", "invalid_utf8", "$[0]", True,
    ),
    "another callback's": lambda m: (b'[{"Body":"%s","Id":1}]' % m.encode(), b"", "no_message_id", "$[0].MessageId", False),
    "not JSON": lambda m: (b"Status=Sent&MessageId=%s" % m.encode(), b"whole", "not_json", "$", False),
    "truncated, all bytes there": lambda m: (body(report(m))[:-1], b"whole", "not_json", "$", False),
    "a string for a root": lambda m: (b'"%s"' % m.encode(), b"whole", "not_an_object", "$", False),
    "a byte order mark before what is no JSON": lambda m: (b"\xef\xbb\xbf<%s>" % m.encode(), b"whole", "not_json", "$", False),
    "an event too large": lambda m: (body(report(m, Extra="x" * 20_000)), b"", "too_large", "$[0]", True),
}  # fmt: skip


@pytest.mark.parametrize("case", QUARANTINED)
async def test_what_cant_be_understood_is_quarantined_as_it_came(
    bridge: BridgeProcess, kept: KeptOf, marked: str, case: str
) -> None:
    """Its raw bytes, a reason and where it stood are kept, and it is answered 200: a retry would be the same bytes."""
    pushed, raw, reason, path, keyed = QUARANTINED[case](marked)

    assert is_success(await bridge.post(pushed))
    (found,) = await kept(marked)
    assert (reason, path, "1/1") == (found.reason, found.path, found.position)
    assert (marked if keyed else None) == found.key
    assert (pushed if raw else pushed[1:-1]) == found.value


async def test_one_broken_report_among_a_thousand_costs_only_itself(
    bridge: BridgeProcess, kept: KeptOf, marked: str
) -> None:
    """999 events and one quarantined record, every position of the callback filled once."""
    reports = [json.dumps(report(f"{marked}-{number}")).encode() for number in range(1000)]
    broken = b'{"MessageId":"%s-700","Status":"Sent","To":"\xff"}' % marked.encode()
    reports[700] = broken

    assert is_success(await bridge.post(b"[" + b",".join(reports) + b"]"))
    found = await kept(marked)
    assert [f"{number}/1000" for number in range(1, 1001)] == [each.position for each in found]
    assert [f"{marked}-{number}" for number in range(1000)] == [each.key for each in found]
    assert [(broken, "invalid_utf8", "$[700]")] == [(e.value, e.reason, e.path) for e in found if e.reason]
    assert len({each.callback for each in found}) == 1


async def test_an_empty_array_is_a_success_and_nothing_is_published(bridge: BridgeProcess) -> None:
    """``[]`` holds no report: there is nothing to keep, and nothing wrong."""
    before = await bridge.metrics()

    assert is_success(await bridge.post(b"[]"))
    received = "chatapp_bridge_reports_received_total"
    assert before[received] == (await bridge.metrics())[received]


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "application/json; charset=GBK",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "no type at all",
    ],
)
async def test_any_content_type_will_do(
    bridge: BridgeProcess, kept: KeptOf, marked: str, content_type: str | None
) -> None:
    """The body is JSON in UTF-8 whatever the header claims, or where there is none."""
    headers = [] if content_type is None else [("Content-Type", content_type)]

    assert is_success(await bridge.post(body(report(marked)), headers=headers))
    assert [marked] == [each.key for each in await kept(marked)]


# --- how it is sent ---------------------------------------------------------------------------------------------------


async def test_a_body_in_chunks_is_one_body(bridge: BridgeProcess, kept: KeptOf, marked: str) -> None:
    """However it is cut, also in the middle of a report."""
    pushed = body(report(marked), report(marked, "Read"))
    pieces = [pushed[at : at + 7] for at in range(0, len(pushed), 7)]

    answer = await exchange(bridge.port, request("POST", bridge.path, chunked(*pieces), [CHUNKED]))

    assert is_success(answer)
    assert ["1/2", "2/2"] == [each.position for each in await kept(marked)]


async def test_pipelined_requests_are_answered_in_order(bridge: BridgeProcess, kept: KeptOf, marked: str) -> None:
    """Several requests in one piece on one connection: each answered, in their order, with what is its own."""
    first, last = (request("POST", bridge.path, body(report(marked, status))) for status in ("Sent", "Read"))
    async with asyncio.timeout(10), connection(bridge.port) as (reader, writer):
        writer.write(first + request("GET", bridge.path) + last)
        answers = [await read_answer(reader) for _ in range(3)]

    assert is_success(answers[0])
    assert is_refusal(answers[1], 405)
    assert is_success(answers[2])
    assert {"SENT", "READ"} == {each.event["status"] for each in await kept(marked)}


async def test_a_client_that_asks_before_it_sends_is_told_to_go_on(
    bridge: BridgeProcess, kept: KeptOf, marked: str
) -> None:
    """Expect: 100-continue gets 100, then the answer; where the body would be refused, the refusal at once."""
    pushed = body(report(marked))
    head = request("POST", bridge.path, b"", [("Expect", "100-continue"), ("Content-Length", str(len(pushed)))])
    async with asyncio.timeout(10), connection(bridge.port) as (reader, writer):
        writer.write(head)
        interim = await read_answer(reader)
        assert interim is not None
        assert interim.status == 100
        writer.write(pushed)
        assert is_success(await read_answer(reader))

    too_much = [("Expect", "100-continue"), ("Content-Length", str(BODY_BYTES + 1))]
    assert is_refusal(await exchange(bridge.port, request("POST", bridge.path, b"", too_much)), 413)
    assert [marked] == [each.key for each in await kept(marked)]


async def test_http_1_0_is_answered_and_closed(bridge: BridgeProcess, kept: KeptOf, marked: str) -> None:
    """An old client gets the same answer, and the end of the connection with it."""
    async with asyncio.timeout(10), connection(bridge.port) as (reader, writer):
        writer.write(request("POST", bridge.path, body(report(marked)), version="1.0"))
        assert is_success(await read_answer(reader))
        assert await reader.read() == b""

    assert [marked] == [each.key for each in await kept(marked)]


async def test_a_connection_is_kept_for_the_next_callback(bridge: BridgeProcess) -> None:
    """The provider pushes many: HTTP/1.1 stays open after a success."""
    async with asyncio.timeout(10), connection(bridge.port) as (reader, writer):
        for _ in range(3):
            writer.write(request("POST", bridge.path, b"[]"))
            assert is_success(await read_answer(reader))


# --- what is not kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [[], [("Content-Length", "0")], [CHUNKED]], ids=["none", "length 0", "chunked"])
async def test_an_empty_body_is_refused(bridge: BridgeProcess, headers: list[tuple[str, str]]) -> None:
    """However its emptiness is said: there is nothing to keep. 400."""
    pushed = chunked() if headers == [CHUNKED] else None

    assert is_refusal(await exchange(bridge.port, request("POST", bridge.path, pushed, headers)), 400)


def short(marked: str, path: str) -> bytes:
    """Whole JSON, but more was announced."""
    pushed = body(report(marked))
    return request("POST", path, pushed, [("Content-Length", str(len(pushed) + 1))])


def unfinished(marked: str, path: str) -> bytes:
    """Whole JSON in chunks, but the final one is missing."""
    return request("POST", path, chunked(body(report(marked)), final=False), [CHUNKED])


INCOMPLETE = {"fewer bytes than announced": short, "no final chunk": unfinished}


@pytest.mark.parametrize("case", INCOMPLETE)
async def test_a_body_cut_short_is_never_published(bridge: BridgeProcess, kept: KeptOf, marked: str, case: str) -> None:
    """Even where what came is whole JSON: what was meant is not known. No answer, or 408 where the client still listens."""
    data = INCOMPLETE[case](marked, bridge.path)

    ended = await exchange(bridge.port, data, end=True)
    assert ended is None or is_refusal(ended, 408)
    async with connection(bridge.port) as (_, writer):
        writer.write(data)
        await writer.drain()  # and then the client is gone
    assert [] == await kept(marked)


@pytest.mark.parametrize("case", INCOMPLETE)
async def test_a_body_that_does_not_come_is_refused_in_time(
    bridge: BridgeProcess, kept: KeptOf, marked: str, case: str
) -> None:
    """The client waits, and so would a retry of a proxy: 408 after limits.body_read_seconds, and the connection ends."""
    began = time.monotonic()
    async with asyncio.timeout(10), connection(bridge.port) as (reader, writer):
        writer.write(INCOMPLETE[case](marked, bridge.path))
        assert is_refusal(await read_answer(reader), 408)
        took = time.monotonic() - began
        assert await reader.read() == b""

    assert BODY_SECONDS <= took < BODY_SECONDS + 0.5
    assert [] == await kept(marked)


async def test_a_body_that_trickles_is_refused_in_time(bridge: BridgeProcess) -> None:
    """A byte now and then does not buy more time: it is for the whole body."""
    began = time.monotonic()

    async def trickle(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.05)

    async with asyncio.timeout(10), connection(bridge.port) as (reader, writer):
        writer.write(request("POST", bridge.path, b"[", [("Content-Length", "1000")]))
        trickling = asyncio.create_task(trickle(writer))
        assert is_refusal(await read_answer(reader), 408)
        trickling.cancel()

    assert BODY_SECONDS <= time.monotonic() - began < BODY_SECONDS + 0.5


async def test_the_largest_body_is_taken_and_a_larger_one_refused(
    bridge: BridgeProcess, kept: KeptOf, marked: str
) -> None:
    """limits.body_bytes to the byte; beyond it 413 before anything of the body is read, or as soon as chunks pass it."""
    largest = body(report(marked)).ljust(BODY_BYTES)

    assert is_success(await bridge.post(largest))
    announced = request("POST", bridge.path, b"", [("Content-Length", str(BODY_BYTES + 1))])
    for data in (announced, request("POST", bridge.path, chunked(largest, b" ", final=False), [CHUNKED])):
        async with asyncio.timeout(5), connection(bridge.port) as (reader, writer):
            writer.write(data)
            assert is_refusal(await read_answer(reader), 413)
            assert await reader.read() == b"", "the rest would have to be read before another request"
    assert len(await kept(marked)) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Content-Length", "2"), ("Content-Length", "3")], 400),
        ([("Content-Length", "two")], 400),
        ([("Content-Length", "-2")], 400),
        ([("Transfer-Encoding", "gzip, chunked")], 501),
        ([("Transfer-Encoding", "gzip"), CHUNKED], 501),
    ],
)
async def test_a_body_whose_end_or_coding_is_unclear_is_refused(
    bridge: BridgeProcess, headers: list[tuple[str, str]], status: int
) -> None:
    """Two lengths, none that is a number, a coding that nobody undoes: nothing is read into it."""
    pushed = chunked(b"[]") if any(name == "Transfer-Encoding" for name, _ in headers) else b"[]"

    answer = await exchange(bridge.port, request("POST", bridge.path, pushed, headers))

    assert answer is not None
    assert answer.status == status


@pytest.mark.parametrize("order", [1, -1])
async def test_nothing_hides_behind_a_body_with_two_framings(bridge: BridgeProcess, order: int) -> None:
    """Content-Length beside Transfer-Encoding: refused, or read as chunks; what follows is never taken for a request."""
    inner = request("GET", bridge.path)
    headers = [("Content-Length", str(len(chunked(b"[]") + inner))), CHUNKED][::order]
    async with asyncio.timeout(5), connection(bridge.port) as (reader, writer):
        writer.write(request("POST", bridge.path, chunked(b"[]") + inner, headers))
        answer = await read_answer(reader)
        assert answer is not None
        assert answer.status in {200, 400}
        assert answer.headers["connection"] == "close"
        assert await reader.read() == b""


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_bytes_in_flight_are_limited_before_a_body_is_read(bridge: BridgeProcess) -> None:
    """While announced bodies fill limits.in_flight_bytes the next is answered 503 at once, unread; afterwards it is taken."""
    announcing = request("POST", bridge.path, b"", [("Content-Length", str(BODY_BYTES))])

    async def full() -> bool:
        return (await bridge.metrics())["chatapp_bridge_in_flight_bytes"] == 2 * BODY_BYTES

    async with asyncio.timeout(10), connection(bridge.port) as first, connection(bridge.port) as second:
        for _, writer in (first, second):
            writer.write(announcing)
        await eventually(full)

        began = time.monotonic()
        refused = await exchange(bridge.port, request("POST", bridge.path, b"", [("Content-Length", "2")]))
        assert is_refusal(refused, 503)
        assert time.monotonic() - began < BODY_SECONDS / 2

        for reader, _ in (first, second):
            assert is_refusal(await read_answer(reader), 408)
    assert is_success(await bridge.post(b"[]"))
    assert (await bridge.metrics())["chatapp_bridge_in_flight_bytes"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        [(f"x-{number}", "") for number in range(12)],
        [(f"x-{number}", "") for number in range(200)],
        [("x", "v" * 2048)],
        [("x", "v" * 15_000)],
        [("x", "v" * 100_000)],
    ],
    ids=["too many", "far too many", "too large", "far too large", "larger than the server's buffer"],
)
async def test_headers_beyond_their_limits_are_refused(bridge: BridgeProcess, headers: list[tuple[str, str]]) -> None:
    """limits.header_count and limits.header_bytes: 431, with words or, far beyond them, without."""
    answer = await exchange(bridge.port, request("POST", bridge.path, b"[]", headers))

    assert answer is not None
    assert answer.status == 431
    assert answer.body == b"" or is_refusal(answer, 431)


async def test_headers_within_their_limits_are_taken(bridge: BridgeProcess) -> None:
    """As many and as large as allowed, Host and Content-Length among them."""
    assert is_success(
        await exchange(bridge.port, request("POST", bridge.path, b"[]", [(f"x-{n}", "") for n in range(10)]))
    )
    assert is_success(await exchange(bridge.port, request("POST", bridge.path, b"[]", [("x", "v" * 1900)])))


async def test_headers_that_do_not_come_cost_a_connection_only_so_long(bridge: BridgeProcess) -> None:
    """After limits.header_read_seconds the connection is closed: half a request holds nothing for ever."""
    began = time.monotonic()

    answer = await exchange(bridge.port, request("POST", bridge.path)[:-2])

    assert answer is None or answer.status == 408
    assert HEADER_SECONDS * 0.9 <= time.monotonic() - began < HEADER_SECONDS + 1.0


# --- access -----------------------------------------------------------------------------------------------------------

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "post"]


def undated(answer: Answer | None) -> bytes:
    """The whole answer as bytes, but for its date."""
    assert answer is not None
    lines = answer.head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"date:")) + answer.body


@pytest.mark.parametrize("method", METHODS)
async def test_a_wrong_secret_is_told_nothing(bridge: BridgeProcess, method: str) -> None:
    """404, whatever the method, and not a byte but the date differs from the 404 of any other path."""
    paths = [
        WRONG, f"/callbacks/chatapp/status/{SECRET[:-1]}", f"{bridge.path}x", f"{bridge.path}/x", "/callbacks/chatapp/status",
        "/callbacks/chatapp/status/", "/callbacks/chatapp", "/", "/nothing", "/favicon.ico", f"/{SECRET}",
    ]  # fmt: skip
    for pushed, headers in ((None, [("Connection", "close")]), (b"[]", []), (b"", [("Content-Length", "999999999")])):
        seen = {undated(await exchange(bridge.port, request(method, path, pushed, headers))) for path in paths}
        assert len(seen) == 1, seen
        assert seen.pop().startswith(b"HTTP/1.1 404 Not Found\r\n")


@pytest.mark.parametrize("method", [method for method in METHODS if method != "POST"])
async def test_another_method_with_the_right_secret_is_not_allowed(bridge: BridgeProcess, method: str) -> None:
    """405, and which one is."""
    answer = await exchange(bridge.port, request(method, bridge.path, headers=[("Connection", "close")]))

    assert answer is not None
    assert (405, "POST") == (answer.status, answer.headers["allow"])
    assert method == "HEAD" or is_refusal(answer, 405)


async def test_every_secret_in_force_admits(bridge: BridgeProcess, kept: KeptOf, marked: str) -> None:
    """Both of the configuration and the one of the mounted file, so that one can replace another without a gap."""
    for secret in (SECRET, SECOND, THIRD):
        assert is_success(await bridge.post(body(report(marked)), path=f"/callbacks/chatapp/status/{secret}"))
    assert len(await kept(marked)) == 3


@pytest.mark.parametrize(
    "path", ["/schema", "/schema/openapi.json", "/schema/swagger", "/docs", "/openapi.json", "/redoc"]
)
async def test_neither_port_has_pages_about_itself(bridge: BridgeProcess, path: str) -> None:
    """No schema, no documentation: 404 as for anything else."""
    for port in (bridge.port, bridge.admin_port):
        assert is_refusal(await exchange(port, request("GET", path)), 404)


async def test_each_port_serves_its_own_and_nothing_of_the_other(bridge: BridgeProcess) -> None:
    """Probes and metrics are the admin port's alone, callbacks the public one's."""
    for path in ("/livez", "/readyz", "/metrics"):
        public = await exchange(bridge.port, request("GET", path))
        admin = await exchange(bridge.admin_port, request("GET", path))
        assert is_refusal(public, 404)
        assert admin is not None
        assert admin.status == 200
    assert is_refusal(await exchange(bridge.admin_port, request("POST", bridge.path, b"[]")), 404)


async def test_a_bridge_told_to_run_open_is_pushed_to_at_status(
    kafka_bootstrap: str, topics: tuple[str, str], kept: KeptOf, marked: str, tmp_path: Path
) -> None:
    """access.allow_unauthenticated: the address ends at /status, and no secret's is there any more."""
    async with BridgeProcess(kafka_bootstrap, tmp_path, {"spool.enabled": False}, topics, secrets=()) as bridge:
        assert bridge.path == "/callbacks/chatapp/status"
        assert is_success(await bridge.post(body(report(marked))))
        assert is_refusal(await bridge.post(body(report(marked)), path=f"{bridge.path}/{SECRET}"), 404)
    assert len(await kept(marked)) == 1
