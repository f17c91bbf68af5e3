# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled part: plain reports from their fields to the record in one step, batches of records, the hash of keys.

Each has a twin in Python. A report is plain when nothing about it needs a decision: a documented status as documented, times that are times, no field
that nobody knows. All others are left out (None in their place) and go the way in Python, which alone defines what a report
means; ``tests/unit/test_plain.py`` holds that both ways give the same bytes. JSON is parsed by msgspec; here nothing is
parsed but digits, and every byte is written behind ``_Buffer.reserve``.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_NoMemory
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from hashlib import sha256

from msgspec import MsgspecError


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL


# The fields of StatusEvent, in its order.
cdef enum:
    EVENT_ID, MESSAGE_ID, TASK_ID, TASK_ID_DEFAULTED, SENDER, RECIPIENT, ORIGIN_PHONE_NUMBER, SENDER_USER_ID
    SENDER_PARENT_USER_ID, SENDER_USER_NAME, STATUS, PROVIDER_STATUS, STATUS_RANK, STATUS_DESCRIPTION, MESSAGE_TIME
    MESSAGE_TIME_SOURCE, RECEIVED_AT, ERROR_CODE, ERROR_DESCRIPTION, ERROR_CATEGORY, ERROR_RETRY, CONVERSATION_ID
    CONVERSATION_TYPE, CONVERSATION_EXPIRES_AT, MESSAGE_FRAME_TYPE, CONTENT_TYPE, TEMPLATE_CODE, TEMPLATE_NAME
    TEMPLATE_LANGUAGE, EXTRAS, FIELDS

# The same as names, for whoever makes the layout to compare.
FIELD_NAMES = (
    "event_id", "message_id", "task_id", "task_id_defaulted", "sender", "recipient", "origin_phone_number",
    "sender_user_id", "sender_parent_user_id", "sender_user_name", "status", "provider_status", "status_rank",
    "status_description", "message_time", "message_time_source", "received_at", "error_code", "error_description",
    "error_category", "error_retry", "conversation_id", "conversation_type", "conversation_expires_at",
    "message_frame_type", "content_type", "template_code", "template_name", "template_language", "extras",
)

cdef enum Kind:
    TEXT, BOOLEAN, NUMBER, SYMBOL

cdef struct Value:
    # Of TEXT and SYMBOL; a text that is absent has no ``at``.
    const char* at
    Py_ssize_t size
    # Of the others; of SYMBOL its place in the enumeration.
    int64_t number
    bint absent

cdef int64_t NOT_PLAIN = -1
cdef int64_t MIN_SECONDS = 10**9, END_SECONDS = 10**10, MIN_MS = 10**12, END_MS = 10**13
cdef Py_ssize_t FOLDED_BYTES = 64, FOLDED_MOST = 1024
cdef const char* HEX = b"0123456789abcdef"


cdef class _Buffer:
    """Bytes being written; ``put`` and its like check for room, ``byte`` leaves that to its caller."""

    cdef char* data
    cdef Py_ssize_t size, room

    def __cinit__(self):
        self.room = 4096
        self.data = <char*>PyMem_Malloc(self.room)
        if self.data is NULL:
            PyErr_NoMemory()

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef int reserve(self, Py_ssize_t more) except -1:
        cdef char* grown
        if self.size + more > self.room:
            grown = <char*>PyMem_Realloc(self.data, 2 * (self.size + more))
            if grown is NULL:
                PyErr_NoMemory()
            self.data, self.room = grown, 2 * (self.size + more)
        return 0

    cdef inline void byte(self, uint8_t value) noexcept:
        self.data[self.size] = <char>value
        self.size += 1

    cdef int put(self, const char* at, Py_ssize_t size) except -1:
        self.reserve(size)
        memcpy(self.data + self.size, at, size)
        self.size += size
        return 0

    cdef int put_bytes(self, bytes text) except -1:
        return self.put(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))

    cdef int quoted(self, const char* at, Py_ssize_t size) except -1:
        """A JSON text, escaped as msgspec does it."""
        cdef Py_ssize_t index
        cdef uint8_t char
        self.reserve(6 * size + 2)
        self.byte(c'"')
        for index in range(size):
            char = <uint8_t>at[index]
            if char >= 0x20 and char != c'"' and char != c'\\':
                self.byte(char)
                continue
            self.byte(c'\\')
            if char == c'"' or char == c'\\':
                self.byte(char)
            elif char == c'\n':
                self.byte(c'n')
            elif char == c'\r':
                self.byte(c'r')
            elif char == c'\t':
                self.byte(c't')
            elif char == 8:
                self.byte(c'b')
            elif char == 12:
                self.byte(c'f')
            else:
                self.byte(c'u')
                self.byte(c'0')
                self.byte(c'0')
                self.byte(HEX[char >> 4])
                self.byte(HEX[char & 15])
        self.byte(c'"')
        return 0

    cdef int decimal(self, int64_t number) except -1:
        """A number that is not negative, in digits."""
        cdef char digits[20]
        cdef Py_ssize_t count = 0
        self.reserve(20)
        while True:
            digits[count] = <char>(c'0' + number % 10)
            number //= 10
            count += 1
            if number == 0:
                break
        while count:
            count -= 1
            self.byte(digits[count])
        return 0

    cdef int zigzag(self, int64_t number) except -1:
        """A varint, as Avro and Kafka have it."""
        cdef uint64_t rest = <uint64_t>(number << 1 ^ number >> 63)
        self.reserve(10)
        while rest >= 0x80:
            self.byte(<uint8_t>(rest & 0x7F | 0x80))
            rest >>= 7
        self.byte(<uint8_t>rest)
        return 0

    cdef int length(self, Py_ssize_t size) except -1:
        """Four bytes, big endian."""
        self.reserve(4)
        self.byte(<uint8_t>(size >> 24))
        self.byte(<uint8_t>(size >> 16))
        self.byte(<uint8_t>(size >> 8))
        self.byte(<uint8_t>size)
        return 0

    cdef bytes taken(self):
        """What was written; the buffer is empty again."""
        cdef bytes written = PyBytes_FromStringAndSize(self.data, self.size)
        self.size = 0
        return written


cdef int _take(object text, Value* value) except -1:
    """A text, absent where it is None or blank."""
    cdef uint8_t first
    value.at, value.size = NULL, 0
    if text is None:
        return 0
    cdef Py_ssize_t size = 0
    cdef const char* at = PyUnicode_AsUTF8AndSize(text, &size)
    if size == 0:
        return 0
    first = <uint8_t>at[0]
    if (first <= 0x20 or first >= 0x80) and (<str>text).isspace():
        return 0
    value.at, value.size = at, size
    return 0


cdef int64_t _time_ms(object time) except? -2:
    """Milliseconds since the epoch, of a time as documented; else NOT_PLAIN."""
    cdef int64_t number = 0
    cdef int overflow = 0
    cdef Py_ssize_t size = 0, index
    cdef const char* at
    if type(time) is int:
        number = PyLong_AsLongLongAndOverflow(time, &overflow)
        if overflow:
            return NOT_PLAIN
    elif type(time) is str:
        at = PyUnicode_AsUTF8AndSize(time, &size)
        if size != 10 and size != 13:
            return NOT_PLAIN
        for index in range(size):
            if at[index] < c'0' or at[index] > c'9':
                return NOT_PLAIN
            number = 10 * number + (at[index] - c'0')
    else:
        return NOT_PLAIN
    if MIN_MS <= number < END_MS:
        return number
    return number * 1000 if MIN_SECONDS <= number < END_SECONDS else NOT_PLAIN


cdef class Shared:
    """What the records of one callback share.

    Args:
        specversion, source, time, content_type: headers of those names.
        after: headers between these and the position.
        total: how many items the callback held.
        received_at_ms: milliseconds since the epoch.
    """

    cdef object specversion, source, time, content_type
    cdef list after
    cdef bytes total
    cdef int64_t received_at_ms
    # bytes of these headers' names and values
    cdef Py_ssize_t bytes

    def __init__(self, specversion, source, time, content_type, list after, int total, int64_t received_at_ms):
        self.specversion, self.source, self.time, self.content_type = specversion, source, time, content_type
        self.after = after
        self.total = b"/%d" % total
        self.received_at_ms = received_at_ms
        self.bytes = sum([len(name) + len(value) for name, value in (specversion, source, time, content_type, *after)])


cdef class PlainEncoder:
    """Makes the records of plain reports.

    Args:
        layout: each of ``FIELD_NAMES`` in order: its name, its kind (``text``, ``boolean``, ``number``, ``symbol``), whether
            it may be null, and an enumeration's symbols.
        avro: values are Avro; else JSON.
        head: what each value begins with.
        statuses: by the spelling: rank, symbol, ``ce_type`` header, spelling folded as UTF-8.
        failed: the symbol of a failure.
        no_error, unknown_error: category and retry of no error, and of a failure without a code.
        error_of: from the present code and description and whether it failed to the code, category and retry.
        fold: of a word of an open list.
        sources: the symbols for a message time of the provider's, and for one that stands in for it.
        record: makes a record of topic, key, value, headers, time and schema.
        topic, schema: the record's.
        overhead_bytes, header_bytes: of a record, and of each of its headers, beside what is in them.
        max_record_bytes: a record that could be larger is not plain.
    """

    cdef bytes head
    cdef bint avro
    cdef list names, symbols
    cdef bint nullable[FIELDS]
    cdef Kind kinds[FIELDS]
    cdef Value values[FIELDS]
    cdef dict statuses, folded
    cdef object failed, record, topic, schema, error_of, fold
    cdef tuple no_error, unknown_error, sources
    cdef Py_ssize_t overhead_bytes, header_bytes, max_record_bytes
    cdef _Buffer buffer
    # what else than the fields holds bytes that ``values`` points to
    cdef list held

    def __init__(self, list layout, *, bint avro, bytes head, dict statuses, str failed, tuple no_error, tuple unknown_error,
                 error_of, fold, tuple sources, record, str topic, schema, Py_ssize_t overhead_bytes,
                 Py_ssize_t header_bytes, Py_ssize_t max_record_bytes):
        if tuple([name for name, _, _, _ in layout]) != FIELD_NAMES:
            raise ValueError("the event has other fields than the compiled encoder knows; compile it anew")
        kinds = {"text": TEXT, "boolean": BOOLEAN, "number": NUMBER, "symbol": SYMBOL}
        self.names, self.symbols = [], []
        for index, (name, kind, nullable, symbols) in enumerate(layout):
            self.kinds[index], self.nullable[index] = kinds[kind], nullable
            self.names.append((b'{"' if index == 0 else b',"') + name.encode() + b'":')
            self.symbols.append({symbol: place for place, symbol in enumerate(symbols)})
        self.avro, self.head = avro, head
        self.statuses, self.failed = statuses, failed
        self.no_error, self.unknown_error, self.error_of, self.fold, self.sources = (
            no_error, unknown_error, error_of, fold, sources
        )
        self.record, self.topic, self.schema = record, topic, schema
        self.overhead_bytes, self.header_bytes, self.max_record_bytes = overhead_bytes, header_bytes, max_record_bytes
        self.folded = {}
        self.held = []
        self.buffer = _Buffer()

    def records(self, list items, decode, Shared shared):
        """The record of each item, and its status; None in their places where an item is not plain.

        Args:
            items: the JSON text of each item.
            decode: of such a text, to an object with a report's fields.
            shared: what the records have in common.
        """
        cdef list records = [], statuses = []
        cdef Py_ssize_t index = 0
        for item in items:
            index += 1
            record = status = None
            try:
                fields = decode(item)
            except (MsgspecError, UnicodeDecodeError, RecursionError):
                pass
            else:
                entry = self.statuses.get(fields.status)
                if entry is not None and self._event(fields, entry, shared):
                    record = self._record(entry, index, shared)
                    status = None if record is None else entry[1]
            records.append(record)
            statuses.append(status)
        return records, statuses

    cdef int _text(self, int index, object text) except -1:
        return _take(text, &self.values[index])

    cdef int _word(self, int index, object text) except -1:
        """A word of one of the open lists, folded."""
        if text is None:
            return _take(None, &self.values[index])
        folded = self.folded.get(text)
        if folded is None:
            folded = self.fold(text) or ""
            if len(<str>text) > FOLDED_BYTES or len(self.folded) >= FOLDED_MOST:
                self.folded.clear()  # whatever comes, it stays small
            self.folded[text] = folded
        self.held.append(folded)
        return _take(folded, &self.values[index])

    cdef int _symbol(self, int index, object symbol) except -1:
        self.values[index].number = (<dict>self.symbols[index])[symbol]
        self.values[index].at = PyUnicode_AsUTF8AndSize(symbol, &self.values[index].size)
        return 0

    cdef void _number(self, int index, int64_t number) noexcept:
        self.values[index].number = number
        self.values[index].absent = False

    cdef bint _event(self, object fields, tuple entry, Shared shared) except -1:
        """What a report means; False where it is not plain. Texts are those of ``fields``, which outlives their use."""
        cdef int64_t time = shared.received_at_ms, expires = 0
        cdef Value* values = self.values
        self.held.clear()
        self.buffer.size = 0  # whatever an exception left there
        self._text(MESSAGE_ID, fields.message_id)
        if values[MESSAGE_ID].at is NULL:
            return False
        sent_at, ends_at = fields.timestamp, fields.conversation_expires
        if sent_at is not None:
            time = _time_ms(sent_at)
        if ends_at is not None:
            expires = _time_ms(ends_at)
        if time == NOT_PLAIN or expires == NOT_PLAIN:
            return False
        self._text(TASK_ID, fields.task_id)
        self._number(TASK_ID_DEFAULTED, values[TASK_ID].at is NULL)
        if values[TASK_ID].at is NULL:
            values[TASK_ID] = values[MESSAGE_ID]
        self._text(SENDER, fields.sender)
        self._text(RECIPIENT, fields.recipient)
        self._text(ORIGIN_PHONE_NUMBER, fields.origin_phone_number)
        self._text(SENDER_USER_ID, fields.user_id)
        self._text(SENDER_PARENT_USER_ID, fields.parent_user_id)
        self._text(SENDER_USER_NAME, fields.user_name)
        self._symbol(STATUS, entry[1])
        self._text(PROVIDER_STATUS, fields.status)
        self._number(STATUS_RANK, entry[0])
        self._text(STATUS_DESCRIPTION, fields.status_description)
        self._number(MESSAGE_TIME, time)
        self._symbol(MESSAGE_TIME_SOURCE, self.sources[sent_at is None])
        self._number(RECEIVED_AT, shared.received_at_ms)
        self._error(fields.error_code, fields.error_description, entry[1])
        self._text(CONVERSATION_ID, fields.conversation_id)
        self._word(CONVERSATION_TYPE, fields.conversation_type)
        self._number(CONVERSATION_EXPIRES_AT, expires)
        values[CONVERSATION_EXPIRES_AT].absent = ends_at is None
        self._text(TEMPLATE_CODE, fields.template_code)
        self._word(MESSAGE_FRAME_TYPE, fields.frame_type)
        if values[MESSAGE_FRAME_TYPE].at is NULL and values[TEMPLATE_CODE].at is not NULL:
            values[MESSAGE_FRAME_TYPE].at, values[MESSAGE_FRAME_TYPE].size = b"template", 8
        self._word(CONTENT_TYPE, fields.content_type)
        self._text(TEMPLATE_NAME, fields.template_name)
        self._text(TEMPLATE_LANGUAGE, fields.language)
        self._text(EXTRAS, None)
        return True

    cdef int _error(self, object code, object description, object status) except -1:
        cdef Value* values = self.values
        self._text(ERROR_CODE, code)
        self._text(ERROR_DESCRIPTION, description)
        if values[ERROR_CODE].at is NULL and values[ERROR_DESCRIPTION].at is NULL:
            meaning = self.unknown_error if status == self.failed else self.no_error
        else:
            code = None if values[ERROR_CODE].at is NULL else code
            description = None if values[ERROR_DESCRIPTION].at is NULL else description
            code, *meaning = self.error_of(code, description, status == self.failed)
            self.held.append((code, meaning))
            self._text(ERROR_CODE, code)
        self._symbol(ERROR_CATEGORY, meaning[0])
        self._symbol(ERROR_RETRY, meaning[1])
        return 0

    cdef object _record(self, tuple entry, Py_ssize_t position, Shared shared):
        """The record of the event in hand; None where it could be too large."""
        cdef Value* message = &self.values[MESSAGE_ID]
        cdef bytes key = PyBytes_FromStringAndSize(message.at, message.size)
        cdef bytes event_id = self._event_id(entry[3])
        self.values[EVENT_ID].at, self.values[EVENT_ID].size = PyBytes_AS_STRING(event_id), PyBytes_GET_SIZE(event_id)
        self.buffer.decimal(position)
        self.buffer.put_bytes(shared.total)
        cdef bytes place = self.buffer.taken()
        cdef bytes value = self._value()
        cdef list headers = [
            shared.specversion, ("ce_id", event_id), shared.source, entry[2], shared.time, ("ce_subject", key),
            shared.content_type, *shared.after, ("bridge_position", place),
        ]
        cdef Py_ssize_t size = (
            self.overhead_bytes + self.header_bytes * len(headers) + shared.bytes + PyBytes_GET_SIZE(value)
            + 2 * PyBytes_GET_SIZE(key) + PyBytes_GET_SIZE(event_id) + PyBytes_GET_SIZE(place)
            + len("ce_id") + len("ce_subject") + len("bridge_position") + len("ce_type") + len(<bytes>entry[2][1])
        )
        if size > self.max_record_bytes:
            return None
        return self.record(self.topic, key, value, headers, shared.received_at_ms, self.schema)

    cdef bytes _event_id(self, bytes state):
        """See ``bridge.status.event.event_id``."""
        cdef Value* values = self.values
        cdef Value* to = &values[RECIPIENT] if values[RECIPIENT].at is not NULL else &values[SENDER_USER_ID]
        cdef _Buffer buffer = self.buffer
        buffer.length(values[MESSAGE_ID].size)
        buffer.put(values[MESSAGE_ID].at, values[MESSAGE_ID].size)
        buffer.length(to.size)
        buffer.put(to.at, to.size)
        buffer.length(PyBytes_GET_SIZE(state))
        buffer.put_bytes(state)
        buffer.length(values[ERROR_CODE].size)
        buffer.put(values[ERROR_CODE].at, values[ERROR_CODE].size)
        cdef bytes digest = sha256(buffer.taken()).digest()
        cdef bytes digits = PyBytes_FromStringAndSize(NULL, 32)
        cdef char* at = PyBytes_AS_STRING(digits)
        cdef uint8_t byte
        for index in range(16):
            byte = <uint8_t>digest[index]
            at[2 * index] = HEX[byte >> 4]
            at[2 * index + 1] = HEX[byte & 15]
        return digits

    cdef bytes _value(self):
        cdef _Buffer buffer = self.buffer
        cdef int index
        buffer.put_bytes(self.head)
        if self.avro:
            for index in range(FIELDS):
                self._put_avro(index)
        else:
            for index in range(FIELDS):
                buffer.put_bytes(self.names[index])
                self._put_json(index)
            buffer.put(b"}", 1)
        return buffer.taken()

    cdef int _put_json(self, int index) except -1:
        cdef Value* value = &self.values[index]
        cdef Kind kind = self.kinds[index]
        if kind == TEXT or kind == SYMBOL:
            if value.at is NULL:
                return self.buffer.put(b"null", 4)
            return self.buffer.quoted(value.at, value.size)
        if kind == BOOLEAN:
            return self.buffer.put(b"true", 4) if value.number else self.buffer.put(b"false", 5)
        if value.absent:
            return self.buffer.put(b"null", 4)
        return self.buffer.decimal(value.number)

    cdef int _put_avro(self, int index) except -1:
        cdef Value* value = &self.values[index]
        cdef Kind kind = self.kinds[index]
        self.buffer.reserve(1)
        if kind == BOOLEAN:
            self.buffer.byte(value.number != 0)
            return 0
        if self.nullable[index]:
            if value.absent or (kind == TEXT and value.at is NULL):
                self.buffer.byte(0)
                return 0
            self.buffer.byte(2)
        if kind != TEXT:
            return self.buffer.zigzag(value.number)
        self.buffer.zigzag(value.size)
        return self.buffer.put(value.at, value.size)


cdef uint32_t M = 0x5BD1E995


def murmur2(bytes data) -> int:
    """As ``bridge.deliver.partition.murmur2``."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), rest = size & 3, at = 0
    cdef const uint8_t* bytes_ = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef uint32_t value = <uint32_t>0x9747B28C ^ <uint32_t>size, word
    while at < size - rest:
        word = (
            <uint32_t>bytes_[at] | <uint32_t>bytes_[at + 1] << 8
            | <uint32_t>bytes_[at + 2] << 16 | <uint32_t>bytes_[at + 3] << 24
        ) * M
        value = value * M ^ (word ^ word >> 24) * M
        at += 4
    if rest:
        word = 0
        while rest:
            rest -= 1
            word = word << 8 | bytes_[at + rest]
        value = (value ^ word) * M
    value = (value ^ value >> 13) * M
    return value ^ value >> 15


cdef inline Py_ssize_t _size_of(int64_t number) noexcept:
    """Bytes of a zigzag varint."""
    cdef uint64_t rest = <uint64_t>(number << 1 ^ number >> 63)
    cdef Py_ssize_t size = 1
    while rest >= 0x80:
        size += 1
        rest >>= 7
    return size


cdef class BatchWriter:
    """The records of one batch (v2), uncompressed, as ``bridge.deliver.batch`` has it in Python.

    Args:
        most_bytes: of the batch with its head; a first record always fits.
    """

    cdef readonly Py_ssize_t count
    cdef readonly int64_t first_ms, last_ms
    cdef Py_ssize_t room
    cdef _Buffer buffer

    def __init__(self, Py_ssize_t most_bytes):
        self.room = most_bytes
        self.buffer = _Buffer()

    @property
    def size(self):
        """Bytes of the records so far."""
        return self.buffer.size

    def extend(self, records, bytes prefix) -> int:
        """Add records, ``prefix`` before their values, until one does not fit; how many were."""
        cdef Py_ssize_t count = 0
        for record in records:
            if not self._append(record, prefix):
                break
            count += 1
        return count

    cdef bint _append(self, record, bytes prefix) except -1:
        cdef bytes key = record.key, value = record.value, header
        cdef list headers = record.headers
        cdef int64_t time = record.timestamp_ms
        cdef int64_t since = time - self.first_ms if self.count else 0
        cdef Py_ssize_t key_size = -1 if key is None else PyBytes_GET_SIZE(key)
        cdef Py_ssize_t value_size = PyBytes_GET_SIZE(prefix) + PyBytes_GET_SIZE(value)
        cdef Py_ssize_t size = (
            1 + _size_of(since) + _size_of(self.count) + _size_of(key_size) + (key_size if key_size > 0 else 0)
            + _size_of(value_size) + value_size + _size_of(len(headers))
        )
        cdef Py_ssize_t name_size = 0
        cdef _Buffer buffer = self.buffer
        for name, header in headers:
            PyUnicode_AsUTF8AndSize(name, &name_size)
            size += _size_of(name_size) + name_size + _size_of(PyBytes_GET_SIZE(header)) + PyBytes_GET_SIZE(header)
        if self.count and buffer.size + size + _size_of(size) > self.room:
            return False
        buffer.zigzag(size)
        buffer.reserve(1)
        buffer.byte(0)
        buffer.zigzag(since)
        buffer.zigzag(self.count)
        buffer.zigzag(key_size)
        if key is not None:
            buffer.put_bytes(key)
        buffer.zigzag(value_size)
        buffer.put_bytes(prefix)
        buffer.put_bytes(value)
        buffer.zigzag(len(headers))
        cdef const char* at
        for name, header in headers:
            at = PyUnicode_AsUTF8AndSize(name, &name_size)
            buffer.zigzag(name_size)
            buffer.put(at, name_size)
            buffer.zigzag(PyBytes_GET_SIZE(header))
            buffer.put_bytes(header)
        if not self.count:
            self.first_ms = time
        self.last_ms = max(self.last_ms, time)
        self.count += 1
        return True

    def written(self) -> bytes:
        """The records' bytes."""
        return PyBytes_FromStringAndSize(self.buffer.data, self.buffer.size)
