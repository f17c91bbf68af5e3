"""A record as a line of JSON (NDJSON), for every tool that reads such.

    {"topic":"chatapp.status.v1","partition":3,"offset":1200,"timestamp":1691043638000,"key":"m-1",
     "headers":{CE_ID:"…",CE_TYPE:"chatapp.status.delivered"},"value":{"event_id":"…","message_id":"m-1"}}

``timestamp`` is milliseconds since the epoch, null where the record has none. ``value`` is the record's value where that is JSON,
the decoded event where it is Avro; else null, and beside it is ``value_text``, or ``value_base64`` for bytes that are no UTF-8,
and ``value_error`` where an event was expected. ``key`` likewise, with ``key_base64``. Where the object of headers can't say all
(a name twice, bytes that are no UTF-8, a value of null), ``headers_exact`` has every pair in order, values in base64.
"""

import base64
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from confluent_kafka import Message
from msgspec import UNSET, Raw, UnsetType

from bridge.consume import Decoder, Undecodable
from bridge.operate.console import counted
from bridge.operate.reading.select import Headers, json_fields

_AVRO: Final = (b"\x00", b"\xc3\x01")
_NULL: Final = Raw(b"null")
_TIMELESS: Final = 0
_SPACED: Final = bytes.maketrans(b"\r\n", b"  ")

_encoder: Final = msgspec.json.Encoder()
# Checks the syntax of JSON without making objects of it.
_skim: Final = msgspec.json.Decoder(Raw).decode


class _Line(msgspec.Struct, omit_defaults=True):
    topic: str
    partition: int
    offset: int
    timestamp: int | None
    key: str | None
    headers: dict[str, str]
    value: Raw
    key_base64: str | UnsetType = UNSET
    value_text: str | UnsetType = UNSET
    value_base64: str | UnsetType = UNSET
    value_error: str | UnsetType = UNSET
    headers_exact: list[tuple[str, str | None]] | UnsetType = UNSET


class Lines:
    """Makes lines of messages.

    Args:
        topic: theirs.
        decoder: of events; None where the topic's values are none, as in the quarantine.

    Attributes:
        undecodable: how many values were expected to be events and could not be read.
    """

    def __init__(self, topic: str, decoder: Decoder | None) -> None:
        self._topic = topic
        self._decoder = decoder
        self.undecodable = 0

    def encode(self, messages: Sequence[Message]) -> bytes:
        """A line each, in their order.

        Raises:
            RegistryError: a schema is needed and can't be had; nothing was encoded.
        """
        undecodable = self.undecodable
        try:
            encoded = _encoder.encode_lines([self._line(message) for message in messages])
            if encoded.count(b"\n") != len(messages) or b"\r" in encoded:
                # Between the tokens of a value stood line ends; within a text JSON has none.
                self.undecodable = undecodable
                encoded = b"".join([_one_line(self._line(message)) for message in messages])
        except BaseException:
            self.undecodable = undecodable
            raise
        return encoded

    def _line(self, message: Message) -> _Line:
        headers: Any = message.headers()
        key = message.key()
        kind, time_ms = message.timestamp()
        line = _Line(
            self._topic,
            message.partition(),
            message.offset(),
            None if kind == _TIMELESS else time_ms,
            None,
            {},
            _NULL,
        )
        try:
            if headers:
                line.headers = {name: value.decode() for name, value in headers}
                if len(line.headers) != len(headers):
                    _put_exact(line, headers)
        except (UnicodeDecodeError, AttributeError):
            _put_exact(line, headers)
        if key is not None:
            try:
                line.key = key.decode()
            except UnicodeDecodeError:
                line.key_base64 = _base64(key)
        value = message.value()
        if value is not None:
            self._put_value(line, value)
        return line

    def _put_value(self, line: _Line, value: bytes) -> None:
        try:
            _skim(value)
            if not value.isascii():
                value.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._put_other(line, value)
        else:
            line.value = Raw(value)

    def _put_other(self, line: _Line, value: bytes) -> None:
        if self._decoder is not None:
            try:
                line.value = Raw(_encoder.encode(self._decoder.decode(value)))
            except Undecodable as error:
                self.undecodable += 1
                line.value_error = str(error)
            else:
                return
        else:
            try:
                line.value_text = value.decode()
            except UnicodeDecodeError:
                pass
            else:
                return
        line.value_base64 = _base64(value)


def _put_exact(line: _Line, headers: Headers) -> None:
    line.headers = {name: value.decode(errors="replace") for name, value in headers if value is not None}
    line.headers_exact = [(name, None if value is None else _base64(value)) for name, value in headers]


def _one_line(line: _Line) -> bytes:
    line.value = Raw(bytes(line.value).translate(_SPACED))
    return _encoder.encode(line) + b"\n"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class EventOf:
    """What filters need of a value, for `Filters.predicate`: JSON cheaply, Avro by the decoder.

    Args:
        decoder: of events.

    Attributes:
        undecodable: how many values no filter could look into, so that none of them was chosen.
        why: of the last of them, without its data.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.undecodable = 0
        self.why = ""

    def __call__(self, value: bytes | None, headers: Headers | None, /) -> Any:
        """The event, or the part of it that filters look at; None where there is none.

        Raises:
            RegistryError: a schema is needed and can't be had.
        """
        if value is not None and value.startswith(_AVRO):
            try:
                return self._decoder.decode(value)
            except Undecodable as error:
                self.undecodable += 1
                self.why = str(error)
                return None
        return json_fields(value, headers)

    def notice(self) -> str:
        """What to say of those; empty where there are none."""
        if not self.undecodable:
            return ""
        values = counted(self.undecodable, "value")
        return f"{values} could not be decoded, so the filters passed them over; of the last: {self.why}"
