"""HTTP/1.1 by hand: tests send what no client library would, and see exactly what comes back."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

HOST = "127.0.0.1"
ANSWER_SECONDS = 20.0


class Answer(NamedTuple):
    """One answer, whole.

    Attributes:
        status: The number.
        headers: By lower-case name.
        body: Its bytes.
        head: The status line and the headers as they came.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


def request(
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Iterable[tuple[str, str]] = (),
    *,
    version: str = "1.1",
) -> bytes:
    """A request's bytes; Content-Length is added where there is a body and neither it nor chunks are announced."""
    pairs = list(headers)
    names = {name.lower() for name, _ in pairs}
    if "host" not in names:
        pairs.insert(0, ("Host", HOST))
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    head = f"{method} {path} HTTP/{version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in pairs)
    return head.encode("latin-1") + b"\r\n" + (body or b"")


def chunked(*chunks: bytes, final: bool = True) -> bytes:
    """A body in the chunked coding, with its final chunk or without."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + (b"0\r\n\r\n" if final else b"")


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool = False) -> Answer | None:
    """The next answer on a connection; None where it ends, or is reset, before one.

    Args:
        reader: The connection's.
        head_only: No body follows, whatever the headers say: an answer to HEAD.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(status_line.split()[1])
    body = b""
    if not (head_only or status in {204, 304} or 100 <= status < 200):
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readuntil(b"\r\n")
        elif "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        else:
            body = await reader.read()
    return Answer(status, headers, body, head)


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, closed at the end."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def exchange(port: int, data: bytes, *, end: bool = False, seconds: float = ANSWER_SECONDS) -> Answer | None:
    """Send bytes on a connection of their own and read one answer, None where the server ends it without.

    Args:
        port: On the loopback address.
        data: Everything that is sent.
        end: Say that nothing more follows (FIN).
        seconds: For the answer.

    Raises:
        TimeoutError: Neither an answer nor the end came in time.
    """
    async with asyncio.timeout(seconds), connection(port) as (reader, writer):
        writer.write(data)
        if end:
            writer.write_eof()
        return await read_answer(reader, head_only=data.startswith(b"HEAD "))


async def get(port: int, path: str, *, seconds: float = ANSWER_SECONDS) -> Answer:
    """GET a path on a connection of its own.

    Raises:
        ConnectionError: There is no answer.
        TimeoutError: It did not come in time.
    """
    answer = await exchange(port, request("GET", path, headers=[("Connection", "close")]), seconds=seconds)
    if answer is None:
        msg = f"no answer to GET {path}"
        raise ConnectionError(msg)
    return answer
