"""HTTP answers in pieces."""

import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.lab.simulate.answer import Answer, AnswerError, AnswerReader

LENGTH = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 26\r\n\r\n" + b'{"code":0,"msg":"Success"}'
CHUNKED = (
    b"HTTP/1.1 503 Nope\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n1;ext=1\r\n \r\nA\r\n"
    b"\r\n\r\n0\r\n\r\n!"
    b"\r\n0\r\nTrailer: 1\r\n\r\n"
)
CHUNKED_PLAIN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + LENGTH
CLOSING = b"HTTP/1.1 413 Too large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
OLD = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nall there is"

WHOLE = [LENGTH, CHUNKED, CHUNKED_PLAIN, EMPTY, INTERIM, CLOSING, OLD, UNTIL_CLOSE]


def _by_h11(data: bytes) -> Answer:
    """What a well-known library makes of it."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    status, body, ended_by_close = 0, b"", False
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            ended_by_close = True
            connection.receive_data(b"")
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
    return Answer(status, body, connection.their_state is h11.DONE and not ended_by_close)


def _read(pieces: list[bytes]) -> Answer:
    reader = AnswerReader()
    for piece in pieces:
        if (answer := reader.feed(piece)) is not None:
            return answer
    return reader.end()


@given(st.sampled_from(WHOLE), st.lists(st.integers(0, 200), max_size=20))
def test_however_it_is_cut_it_is_the_same_answer(data: bytes, cuts: list[int]) -> None:
    """Any pieces give the status, body and reusability that h11 reads from the whole."""
    bounds = [0, *sorted(cuts), len(data)]
    pieces = [data[start:stop] for start, stop in itertools.pairwise(bounds)]
    assert _by_h11(data) == _read(pieces)


@pytest.mark.parametrize("data", [data for data in WHOLE if data is not UNTIL_CLOSE])
def test_an_answer_is_there_with_its_last_byte_and_not_before(data: bytes) -> None:
    """No prefix of an answer is an answer; closed there, it is cut short."""
    for length in range(1, len(data)):
        reader = AnswerReader()
        assert reader.feed(data[:length]) is None
        with pytest.raises(AnswerError) as caught:
            reader.end()
        # Between an interim answer and the one that it announces nothing of the latter has come.
        assert caught.value.word == "cut short" or data[:length].endswith(b"\r\n\r\n")
    assert AnswerReader().feed(data) is not None


def test_closed_before_the_first_byte_is_closed() -> None:
    """A connection that ends without an answer is told from one that ends in an answer."""
    with pytest.raises(AnswerError, match="closed before") as caught:
        AnswerReader().end()
    assert caught.value.word == "closed"


def test_one_reader_reads_one_answer_after_another() -> None:
    """Nothing of an answer is left over for the next one."""
    reader = AnswerReader()
    statuses = []
    for data in (LENGTH, CHUNKED, EMPTY, CHUNKED_PLAIN):
        answer = reader.feed(data)
        assert answer is not None
        assert not reader.begun
        statuses.append((answer.status, answer.reusable))
    assert statuses == [(200, True), (503, True), (204, True), (200, True)]


def test_what_follows_an_answer_unasked_ends_the_connection() -> None:
    """Surplus bytes can't be trusted to be the answer to the next request."""
    answer = AnswerReader().feed(LENGTH + b"HTTP/1.1 200 OK")
    assert answer is not None
    assert not answer.reusable


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000_000,
    ],
)
def test_nonsense_is_malformed(data: bytes) -> None:
    """What is no HTTP answer, or one without bounds, is refused rather than guessed at."""
    with pytest.raises(AnswerError) as caught:
        AnswerReader().feed(data)
    assert caught.value.word == "malformed"
