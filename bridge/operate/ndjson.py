"""A record as a line of JSON (NDJSON): the one form of ``replay --to-file``, ``tail --format json`` and ``spool export``.

    {"topic":"chatapp.status.v1","partition":3,"offset":1200,"timestamp":1691043638000,"key":"m-1",
     "headers":{CE_ID:"…",CE_TYPE:"chatapp.status.delivered"},"value":{"event_id":"…","message_id":"m-1"}}

``timestamp`` is milliseconds since the epoch, null where the record has none. ``value`` is the record's value where that is JSON,
the decoded event where it is Avro; else it is null, and next to it is ``value_text``, or ``value_base64`` for bytes that are not
UTF-8, with ``value_error`` where an event was expected. ``key`` likewise, with ``key_base64``. Where the object of headers can't
hold all (a name twice, bytes that are not UTF-8, a value of null), ``headers_exact`` has every pair in order, values in base64.

A record of the spool has no ``partition`` and no ``offset`` yet, but the ``lane`` and ``seq`` of its row; a dead letter has
``dead_letter`` as well: its id, reason and time. Of a damaged dead letter only ``damaged_base64`` is left, the bytes of its row.
"""

import base64
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import Message
from msgspec import UNSET, Raw, UnsetType

from bridge.consume import Decoder, Undecodable
from bridge.headers import QUARANTINE_REASON
from bridge.operate.console import counted
from bridge.operate.reading.select import Headers, header, json_fields
from bridge.record import Record

_AVRO: Final = (b"\x00", b"\xc3\x01")
_NULL: Final = Raw(b"null")
_TIMELESS: Final = 0
_SPACED: Final = bytes.maketrans(b"\r\n", b"  ")

_encoder: Final = msgspec.json.Encoder()
# Checks the syntax of JSON without making objects of it.
_skim: Final = msgspec.json.Decoder(Raw).decode


# --- files ------------------------------------------------------------------------------------------------------------


def new_file(file: Path) -> int:
    """Make a file for lines, which only its owner can read: its descriptor.

    Raises:
        FileExistsError: the file is there already; it is not touched.
        OSError: it can't be made.
    """
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)


def refusal(file: Path, error: OSError, *others: str) -> str:
    """Why ``new_file`` did not make a file, in words; ``others`` are files that have to be removed with it."""
    if isinstance(error, FileExistsError):
        return f"{file} is there already; give another name, or remove {' and '.join(('it', *others))}"
    return f"{file}: {error.strerror}"


# --- lines ------------------------------------------------------------------------------------------------------------


class _Line(msgspec.Struct, omit_defaults=True, kw_only=True):
    topic: str | None
    partition: int | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    timestamp: int | None
    key: str | None
    headers: dict[str, str]
    value: Raw
    key_base64: str | UnsetType = UNSET
    value_text: str | UnsetType = UNSET
    value_base64: str | UnsetType = UNSET
    value_error: str | UnsetType = UNSET
    headers_exact: list[tuple[str, str | None]] | UnsetType = UNSET
    lane: int | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    dead_letter: dict[str, int | str] | UnsetType = UNSET
    damaged_base64: str | UnsetType = UNSET


class _Encoder:
    """What makes lines, of whatever kind of record.

    Attributes:
        undecodable: how many values were expected to be events and could not be read.
    """

    def __init__(self) -> None:
        self.undecodable = 0

    def _encoded(self, make: Callable[[], list[_Line]]) -> bytes:
        """The lines that ``make`` makes, each on a line of its own; it may be called twice."""
        undecodable = self.undecodable
        try:
            lines = make()
            encoded = _encoder.encode_lines(lines)
            if encoded.count(b"\n") != len(lines) or b"\r" in encoded:
                # There were line ends between the tokens of a value; within a text JSON has none.
                self.undecodable = undecodable
                encoded = b"".join([_one_line(line) for line in make()])
        except BaseException:
            self.undecodable = undecodable
            raise
        return encoded

    def _put(self, line: _Line, key: bytes | None, headers: Any, value: bytes | None, decoder: Decoder | None) -> _Line:
        try:
            if headers:
                line.headers = {name: each.decode() for name, each in headers}
                if len(line.headers) != len(headers):
                    _put_exact(line, headers)
        except (UnicodeDecodeError, AttributeError):
            _put_exact(line, headers)
        if key is not None:
            try:
                line.key = key.decode()
            except UnicodeDecodeError:
                line.key_base64 = _base64(key)
        if value is not None:
            self._put_value(line, value, decoder)
        return line

    def _put_value(self, line: _Line, value: bytes, decoder: Decoder | None) -> None:
        try:
            _skim(value)
            if not value.isascii():
                value.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._put_other(line, value, decoder)
        else:
            line.value = Raw(value)

    def _put_other(self, line: _Line, value: bytes, decoder: Decoder | None) -> None:
        if decoder is not None:
            try:
                line.value = Raw(_encoder.encode(decoder.decode(value)))
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


class Lines(_Encoder):
    """Makes lines of a topic's messages.

    Args:
        topic: theirs.
        decoder: of events; None where the topic's values are none, as in the quarantine.
    """

    def __init__(self, topic: str, decoder: Decoder | None) -> None:
        super().__init__()
        self._topic = topic
        self._decoder = decoder

    def encode(self, messages: Sequence[Message]) -> bytes:
        """A line each, in their order.

        Raises:
            RegistryError: a schema is needed and can't be had; nothing was encoded.
        """
        return self._encoded(lambda: [self._line(message) for message in messages])

    def _line(self, message: Message) -> _Line:
        kind, time_ms = message.timestamp()
        line = _Line(
            topic=self._topic,
            partition=message.partition(),
            offset=message.offset(),
            timestamp=None if kind == _TIMELESS else time_ms,
            key=None,
            headers={},
            value=_NULL,
        )
        return self._put(line, message.key(), message.headers(), message.value(), self._decoder)


class SpoolLines(_Encoder):
    """Makes lines of the records of a spool, which may be of any topic."""

    def __init__(self) -> None:
        super().__init__()
        self._decoder = Decoder()

    def encode(
        self, records: Sequence[Record], lane: int, seq: int, dead_letter: dict[str, int | str] | UnsetType = UNSET
    ) -> bytes:
        """A line for each record of a row, in their order; ``dead_letter`` has the ``id``, ``reason`` and ``at`` of one."""

        def line(record: Record) -> _Line:
            of_row = _Line(
                topic=record.topic,
                timestamp=record.timestamp_ms,
                key=None,
                headers={},
                value=_NULL,
                lane=lane,
                seq=seq,
                dead_letter=dead_letter,
            )
            decoder = self._decoder if header(record.headers, QUARANTINE_REASON) is None else None
            return self._put(of_row, record.key, record.headers, record.self_describing_value, decoder)

        return self._encoded(lambda: [line(record) for record in records])

    def encode_damaged(self, body: bytes, lane: int, seq: int, dead_letter: dict[str, int | str]) -> bytes:
        """The line of a damaged dead letter: nothing is known of its records."""
        line = _Line(
            topic=None,
            timestamp=None,
            key=None,
            headers={},
            value=_NULL,
            lane=lane,
            seq=seq,
            dead_letter=dead_letter,
            damaged_base64=_base64(body),
        )
        return self._encoded(lambda: [line])


def undecodable_notice(count: int) -> str:
    """What to say of values that were expected to be events and could not be read; empty where there are none."""
    if not count:
        return ""
    return f"{count:,} values could not be decoded; they are in the output as value_base64, with value_error"


def _put_exact(line: _Line, headers: Headers) -> None:
    line.headers = {name: value.decode(errors="replace") for name, value in headers if value is not None}
    line.headers_exact = [(name, None if value is None else _base64(value)) for name, value in headers]


def _one_line(line: _Line) -> bytes:
    line.value = Raw(bytes(line.value).translate(_SPACED))
    return _encoder.encode(line) + b"\n"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- events for filters -----------------------------------------------------------------------------------------------


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
