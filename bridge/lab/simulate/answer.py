"""HTTP/1.1 answers, however the network cuts them into pieces (RFC 9112), and no more of HTTP than that.

A client library takes a millisecond or two for a request; a load generator that shares two cores with what it
measures can't. So this is small, and strict where being wrong would be worse than failing: an answer is
either whole, or not there yet, or an AnswerError.
"""

from enum import Enum, auto
from http import HTTPStatus

import msgspec

_MAX_HEAD_BYTES = 64 * 1024
_MAX_BODY_BYTES = 1024 * 1024
_END_OF_HEAD = b"\r\n\r\n"
_END_OF_LINE = b"\r\n"


class AnswerError(Exception):
    """What came is no whole HTTP answer. ``word`` is stable: ``closed``, ``cut short`` or ``malformed``."""

    def __init__(self, word: str, detail: str) -> None:
        super().__init__(f"{word}: {detail}")
        self.word = word


class Answer(msgspec.Struct, frozen=True):
    """One answer; ``reusable`` says whether another request may follow on its connection."""

    status: int
    body: bytes
    reusable: bool


class _Framing(Enum):
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()


class _Head(msgspec.Struct, frozen=True):
    status: int
    framing: _Framing
    length: int
    reusable: bool


class AnswerReader:
    """Reads one answer after another from the bytes of a connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._chunks = bytearray()

    @property
    def begun(self) -> bool:
        """Whether part of an answer is here."""
        return self._head is not None or bool(self._buffer)

    def feed(self, data: bytes) -> Answer | None:
        """Take what was received; the answer if it is whole now. Raises AnswerError."""
        self._buffer += data
        while self._head is None:
            head = self._take_head()
            if head is None:
                return None
            if head.status >= HTTPStatus.OK:  # what comes before is interim: the answer proper follows
                self._head = head
        body = self._take_body(self._head)
        return None if body is None else self._finish(self._head, body)

    def end(self) -> Answer:
        """The connection is closed: the answer that this completes. Raises AnswerError if there is none."""
        if self._head is not None and self._head.framing is _Framing.UNTIL_CLOSE:
            return self._finish(self._head, bytes(self._take(len(self._buffer))))
        if self.begun:
            raise AnswerError("cut short", "closed in the middle of an answer")
        raise AnswerError("closed", "closed before an answer")

    def _finish(self, head: _Head, body: bytes) -> Answer:
        self._head = None
        surplus = bool(self._buffer)  # bytes nobody asked for: what follows can't be trusted to be an answer
        return Answer(head.status, body, head.reusable and not surplus)

    def _take(self, count: int) -> bytearray:
        taken = self._buffer[:count]
        del self._buffer[:count]
        return taken

    def _take_head(self) -> _Head | None:
        end = self._buffer.find(_END_OF_HEAD)
        if end < 0:
            _bound("head", len(self._buffer), _MAX_HEAD_BYTES)
            return None
        lines = bytes(self._take(end + len(_END_OF_HEAD))).split(_END_OF_LINE)[:-2]
        return _parse_head(lines)

    def _take_body(self, head: _Head) -> bytes | None:
        if head.framing is _Framing.LENGTH:
            if len(self._buffer) < head.length:
                return None
            return bytes(self._take(head.length))
        if head.framing is _Framing.CHUNKED:
            return self._take_chunks()
        _bound("body", len(self._buffer), _MAX_BODY_BYTES)
        return None

    def _take_chunks(self) -> bytes | None:
        """Move whole chunks out of the buffer; the body once the last one and the trailers are there."""
        while (end := self._buffer.find(_END_OF_LINE)) >= 0:
            size = _chunk_size(bytes(self._buffer[:end]))
            start = end + len(_END_OF_LINE)
            if size == 0:
                return self._take_trailers()
            stop = start + size
            _bound("body", len(self._chunks) + size, _MAX_BODY_BYTES)
            if len(self._buffer) < stop + len(_END_OF_LINE):
                return None
            if self._buffer[stop : stop + len(_END_OF_LINE)] != _END_OF_LINE:
                raise AnswerError("malformed", "a chunk is not ended by a line end")
            self._chunks += self._buffer[start:stop]
            del self._buffer[: stop + len(_END_OF_LINE)]
        _bound("chunk size", len(self._buffer), _MAX_HEAD_BYTES)
        return None

    def _take_trailers(self) -> bytes | None:
        # From the last chunk's size line on: without trailers the empty line follows it directly.
        end = self._buffer.find(_END_OF_HEAD)
        if end < 0:
            _bound("trailers", len(self._buffer), _MAX_HEAD_BYTES)
            return None
        del self._buffer[: end + len(_END_OF_HEAD)]
        body, self._chunks = bytes(self._chunks), bytearray()
        return body


def _parse_head(lines: list[bytes]) -> _Head:
    version, _, rest = lines[0].partition(b" ")
    code = rest[:3]
    if version not in {b"HTTP/1.1", b"HTTP/1.0"} or len(code) != len(b"200") or not code.isdigit():
        raise AnswerError("malformed", "no HTTP/1 status line")
    length: int | None = None
    chunked = False
    connection = b""
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon:
            raise AnswerError("malformed", "a header without a colon")
        match name.lower():
            case b"content-length":
                length = _length(value.strip(), length)
            case b"transfer-encoding":
                chunked = _chunked(value.strip().lower())
            case b"connection":
                connection = value.strip().lower()
    status = int(code)
    close = b"close" in connection or (version == b"HTTP/1.0" and b"keep-alive" not in connection)
    if status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
        return _Head(status, _Framing.LENGTH, 0, not close)
    if chunked:  # it outranks a length, and an answer with both is one to part from
        return _Head(status, _Framing.CHUNKED, 0, not close and length is None)
    if length is not None:
        return _Head(status, _Framing.LENGTH, length, not close)
    return _Head(status, _Framing.UNTIL_CLOSE, 0, reusable=False)


def _length(value: bytes, before: int | None) -> int:
    if not value.isdigit() or (before is not None and before != int(value)):
        raise AnswerError("malformed", "Content-Length is no number, or two that differ")
    _bound("body", int(value), _MAX_BODY_BYTES)
    return int(value)


def _chunked(value: bytes) -> bool:
    if value != b"chunked":
        raise AnswerError("malformed", "a Transfer-Encoding other than chunked")
    return True


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or digits.strip(b"0123456789abcdefABCDEF"):
        raise AnswerError("malformed", "a chunk without a size")
    return int(digits, 16)


def _bound(what: str, size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise AnswerError("malformed", f"the {what} is larger than {limit_bytes} bytes")
