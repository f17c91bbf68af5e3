"""Where to push to."""

import asyncio

import pytest

from bridge.errors import ConfigurationError
from bridge.lab.simulate.answer import AnswerError
from bridge.lab.simulate.connection import Connection, Target


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8080/chatapp/s3cret", "http://127.0.0.1:8080/chatapp/****"),
        ("https://bridge.example/s3cret", "https://bridge.example/****"),
        ("https://bridge.example:443/a/b/s3cret/", "https://bridge.example/a/b/****"),
        ("http://[::1]:81/s3cret", "http://[::1]:81/****"),
        ("http://localhost", "http://localhost/"),
    ],
)
def test_the_secret_is_never_shown(url: str, shown: str) -> None:
    """The last path segment is masked in every text of a target."""
    target = Target.parse(url)
    assert shown == str(target)
    assert "s3cret" not in f"{target} {target!r} {[target]}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bridge.example/s3cret",
        "ftp://bridge.example/s3cret",
        "http:///s3cret",
        "http://host:99999/s3cret",
        "http://[::1/s3cret",
        "http://user:s3cret@host/",
        "http://host/s3cret?x=1",
        "http://host/s3cret#x",
        "http://host/s3cret x",
        "http://host/s3cret\r\nX: y",
        "http://host/s3crét",
    ],
)
def test_what_is_no_callback_url_is_refused_without_repeating_it(url: str) -> None:
    """A wrong URL may hold the secret all the same."""
    with pytest.raises(ConfigurationError) as caught:
        Target.parse(url)
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - is not bound to
        ("bridge.example", False),
        ("localhost.bridge.example", False),
        ("127.0.0.1.bridge.example", False),
        ("[2001:db8::1]", False),
    ],
)
def test_only_loopback_is_this_machine(host: str, local: bool) -> None:
    """No name that merely looks local is local."""
    assert local == Target.parse(f"http://{host}/x").is_local


def test_the_request_is_plain_http() -> None:
    """Host, length and an empty line, then the body as it is."""
    request = Target.parse("http://localhost:81/a/b").request(b"[\xff]")
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /a/b HTTP/1.1"
    assert {b"Host: localhost:81", b"Content-Length: 3"} <= set(lines)
    assert body == b"[\xff]"


async def test_a_connection_carries_one_request_at_a_time() -> None:
    """Posting on a connection that isn't there, or is waiting, is a mistake in the program."""
    with pytest.raises(RuntimeError, match="not free"):
        Connection().post(b"", 1.0)


class _Transport(asyncio.Transport):
    """Takes what is written, and is closed when told."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Nothing is done with it."""

    def abort(self) -> None:
        """Nothing is left to do."""

    def get_write_buffer_size(self) -> int:
        """Everything is sent at once."""
        return 0


@pytest.mark.parametrize(
    "part",
    [
        b"H",
        b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{",
        b'HTTP/1.1 200 OK\r\n\r\n{"code":0,"msg":"Success"}',  # only an orderly close could end this one
    ],
)
async def test_a_reset_never_completes_an_answer(part: bytes) -> None:
    """However much is there, an answer that ends with a reset is cut short."""
    connection = Connection()
    connection.connection_made(_Transport())
    waiting = connection.post(b"", 1.0)
    connection.data_received(part)
    connection.connection_lost(ConnectionResetError())
    with pytest.raises(AnswerError) as caught:
        await waiting
    assert caught.value.word == "cut short"
    assert not connection.usable


async def test_bytes_that_nobody_asked_for_end_a_connection() -> None:
    """What comes before a request can't be taken for its answer."""
    connection = Connection()
    connection.connection_made(_Transport())
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert not connection.usable
