# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled part: fast-path reports from their fields to the record in one step, batches of records, the hash of keys.

Each has a twin in Python. A report takes the fast path when nothing about it needs a decision: a documented status as documented, times
that are times, no field that nobody knows, and text of ASCII that is not escaped. All others are left out (None in their place)
and go the way in Python, which alone defines what a report means; ``tests/unit/test_compiled.py`` holds that both ways give the
same bytes. What is read here msgspec has found to be JSON; every byte is read before ``_Text.end``, and written behind
``_Buffer.reserve``.
"""

cimport cython
from cpython.buffer cimport Py_buffer, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_NoMemory
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from hashlib import sha256

from bridge.record import Record


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    object PyUnicode_FromStringAndSize(const char* text, Py_ssize_t size)


# The fields of StatusEvent, in its order.
cdef enum:
    EVENT_ID, MESSAGE_ID, TASK_ID, TASK_ID_DEFAULTED, SENDER, RECIPIENT, ORIGIN_PHONE_NUMBER, USER_ID
    PARENT_USER_ID, USER_NAME, STATUS, PROVIDER_STATUS, STATUS_RANK, STATUS_DESCRIPTION, MESSAGE_TIME
    MESSAGE_TIME_SOURCE, RECEIVED_AT, ERROR_CODE, ERROR_DESCRIPTION, ERROR_CATEGORY, ERROR_RETRY, CONVERSATION_ID
    CONVERSATION_TYPE, CONVERSATION_EXPIRES_AT, MESSAGE_FRAME_TYPE, CONTENT_TYPE, TEMPLATE_CODE, TEMPLATE_NAME
    TEMPLATE_LANGUAGE, EXTRAS, FIELDS

# The same as names, for whoever makes the layout to compare.
FIELD_NAMES = (
    "event_id", "message_id", "task_id", "task_id_defaulted", "sender", "recipient", "origin_phone_number",
    "user_id", "parent_user_id", "user_name", "status", "provider_status", "status_rank",
    "status_description", "message_time", "message_time_source", "received_at", "error_code", "error_description",
    "error_category", "error_retry", "conversation_id", "conversation_type", "conversation_expires_at",
    "message_frame_type", "content_type", "template_code", "template_name", "template_language", "extras",
)

# What a report has beyond what its event takes over as it is.
cdef enum:
    WIRE_STATUS = FIELDS
    WIRE_TIMESTAMP, WIRE_EXPIRES, WIRE_CONVERSATION_TYPE, WIRE_FRAME_TYPE, WIRE_CONTENT_TYPE, ALL_VALUES

# The names on the wire, and where their values are put.
WIRE_NAMES = {
    "MessageId": MESSAGE_ID, "From": SENDER, "To": RECIPIENT, "Timestamp": WIRE_TIMESTAMP, "Status": WIRE_STATUS,
    "StatusDescription": STATUS_DESCRIPTION, "ErrorCode": ERROR_CODE, "ErrorDescription": ERROR_DESCRIPTION,
    "ConversationType": WIRE_CONVERSATION_TYPE, "ConversationId": CONVERSATION_ID,
    "ConversationExpirationTime": WIRE_EXPIRES, "MsgFrameType": WIRE_FRAME_TYPE, "Type": WIRE_CONTENT_TYPE,
    "TaskId": TASK_ID, "OriginPhoneNumber": ORIGIN_PHONE_NUMBER, "TemplateCode": TEMPLATE_CODE,
    "TemplateName": TEMPLATE_NAME, "Language": TEMPLATE_LANGUAGE, "FromUserId": USER_ID,
    "FromParentUserId": PARENT_USER_ID, "FromUserName": USER_NAME,
}
cdef Py_ssize_t LONGEST_NAME = 26, OF_A_LENGTH = 5

cdef enum Kind:
    TEXT, BOOLEAN, NUMBER, SYMBOL

cdef struct Value:
    # Of TEXT and SYMBOL; a text that is absent has no ``at``.
    const char* at
    Py_ssize_t size
    # Of the others; of SYMBOL its place in the enumeration.
    int64_t number
    bint absent

cdef int64_t SLOW_PATH = -1
cdef int64_t MIN_SECONDS = 10**9, END_SECONDS = 10**10, MIN_MS = 10**12, END_MS = 10**13
cdef Py_ssize_t NORMALIZED_BYTES = 64, NORMALIZED_MOST = 1024
# What a value takes beside its name and its text, at most: its quotes or its digits.
cdef Py_ssize_t FIELD_BYTES = 21
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

    cdef int zigzag(self, int64_t number) except -1:
        self.reserve(10)
        self.size = _zigzag(self.data + self.size, number) - self.data
        return 0

    cdef int big_endian(self, uint64_t number, int count) except -1:
        """A number in so many bytes, 8 at most."""
        self.reserve(8)
        while count:
            count -= 1
            self.byte(<uint8_t>(number >> 8 * count))
        return 0

    cdef int sized(self, bytes text) except -1:
        """Its size before it."""
        self.zigzag(PyBytes_GET_SIZE(text))
        return self.put_bytes(text)

    cdef Py_ssize_t header(self, tuple header) except -1:
        """A header of Python's; how many bytes its name and value have."""
        cdef bytes value = header[1]
        cdef Py_ssize_t size = 0
        cdef const char* name = PyUnicode_AsUTF8AndSize(header[0], &size)
        self.zigzag(size)
        self.put(name, size)
        self.sized(value)
        return size + PyBytes_GET_SIZE(value)

    # MessagePack's: nothing, the beginning of an array, a text, bytes.

    cdef int nil(self) except -1:
        return self.big_endian(0xC0, 1)

    cdef int array(self, Py_ssize_t count) except -1:
        return self.big_endian(0x90 | count, 1) if count < 16 else self._counted(0xDC, count)

    cdef int text(self, const char* at, Py_ssize_t size) except -1:
        if size < 32:
            self.big_endian(0xA0 | size, 1)
        elif size < 1 << 8:
            self.big_endian(0xD9 << 8 | size, 2)
        else:
            self._counted(0xDA, size)
        return self.put(at, size)

    cdef int binary(self, const char* at, Py_ssize_t size) except -1:
        if size < 1 << 8:
            self.big_endian(0xC4 << 8 | size, 2)
        else:
            self._counted(0xC5, size)
        return self.put(at, size)

    cdef int _counted(self, uint64_t kind, Py_ssize_t count) except -1:
        """Of a kind, in two bytes; else of the next kind, in four."""
        return self.big_endian(kind << 16 | count, 3) if count < 1 << 16 else self.big_endian((kind + 1) << 32 | count, 5)

    cdef bytes taken(self):
        """What was written; the buffer is empty again."""
        cdef bytes written = PyBytes_FromStringAndSize(self.data, self.size)
        self.size = 0
        return written


# These write to where there is room, and give where they ended.

cdef inline char* _copied(char* to, const char* at, Py_ssize_t size) noexcept:
    memcpy(to, at, size)
    return to + size


cdef inline char* _decimal(char* to, int64_t number) noexcept:
    """A number that is not negative, in digits; 20 at most."""
    cdef char digits[20]
    cdef Py_ssize_t count = 0
    while True:
        digits[19 - count] = <char>(c'0' + number % 10)
        number //= 10
        count += 1
        if number == 0:
            break
    return _copied(to, digits + 20 - count, count)


cdef inline char* _zigzag(char* to, int64_t number) noexcept:
    """A varint, as Avro and Kafka have it; 10 bytes at most."""
    cdef uint64_t rest = <uint64_t>(number << 1 ^ number >> 63)
    while rest >= 0x80:
        to[0] = <char>(rest & 0x7F | 0x80)
        to += 1
        rest >>= 7
    to[0] = <char>rest
    return to + 1


cdef bint _take(object text, Value* value) except -1:
    """A text of Python's, absent where it is None or empty; False where it needs the slow path."""
    value.at, value.size = NULL, 0
    cdef Py_ssize_t size = 0, index
    cdef const char* at
    if text is not None:
        at = PyUnicode_AsUTF8AndSize(text, &size)
        for index in range(size):
            if not _needs_no_escape(<uint8_t>at[index]):
                return False
        if size:
            value.at, value.size = at, size
    return True


cdef inline bint _needs_no_escape(uint8_t char) noexcept:
    """Of ASCII, and in JSON as it is."""
    return 0x20 <= char < 0x80 and char != c'"' and char != c'\\'


cdef object _text_of(Value* value):
    """The text in Python; None where it is absent."""
    return None if value.at is NULL else PyUnicode_FromStringAndSize(value.at, value.size)


cdef int64_t _time_ms(Value* value) noexcept:
    """Milliseconds since the epoch, of ten or thirteen digits; else SLOW_PATH."""
    cdef int64_t number = 0
    cdef Py_ssize_t index
    if value.size != 10 and value.size != 13:
        return SLOW_PATH
    for index in range(value.size):
        if not c'0' <= value.at[index] <= c'9':
            return SLOW_PATH
        number = 10 * number + (value.at[index] - c'0')
    if MIN_MS <= number < END_MS:
        return number
    return number * 1000 if MIN_SECONDS <= number < END_SECONDS else SLOW_PATH


cdef inline int _blank_is_absent(Value* value) noexcept:
    cdef Py_ssize_t index = 0
    while index < value.size and value.at[index] == c' ':
        index += 1
    if index == value.size:
        value.at = NULL
        value.size = 0
    return 0


cdef struct Text:
    const char* at
    const char* end


cdef inline int _space(Text* text) noexcept:
    """Passes over white space; what stands there then, 0 at the end."""
    while text.at < text.end and (text.at[0] == c' ' or text.at[0] == c'\n' or text.at[0] == c'\r' or text.at[0] == c'\t'):
        text.at += 1
    return text.at[0] if text.at < text.end else 0


cdef inline bint _string(Text* text, Value* value) noexcept:
    """The string that begins here; False where it is none, or none of ASCII without an escape."""
    cdef const char* at = text.at + 1
    cdef uint8_t char
    if _space(text) != c'"':
        return False
    at = text.at + 1
    while at < text.end:
        char = <uint8_t>at[0]
        if char == c'"':
            value.at, value.size = text.at + 1, at - text.at - 1
            text.at = at + 1
            return True
        if not _needs_no_escape(char):
            return False
        at += 1
    return False


cdef inline bint _digits(Text* text, Value* value) noexcept:
    """The digits that begin here, and nothing else that a number may have."""
    value.at = text.at
    while text.at < text.end and c'0' <= text.at[0] <= c'9':
        text.at += 1
    value.size = text.at - value.at
    cdef int following = _space(text)
    return value.size > 0 and (following == c',' or following == c'}')


cdef inline bint _null(Text* text) noexcept:
    if text.end - text.at < 4 or memcmp(text.at, b"null", 4) != 0:
        return False
    text.at += 4
    return True


@cython.final
@cython.no_gc
@cython.freelist(1024)
cdef class WrittenRecord:
    """A :class:`bridge.record.Record` with its bytes as a batch has them: key, value, number of headers, headers, side by side.

    Python's objects of it are made when they are asked for, which is where something went wrong.
    """

    cdef readonly str topic
    cdef readonly object schema
    cdef readonly int64_t timestamp_ms
    cdef bytes written
    # -1 where there is no key
    cdef Py_ssize_t key_size, value_size

    @property
    def key(self):
        return None if self.key_size < 0 else self.written[:self.key_size]

    @property
    def value(self):
        cdef Py_ssize_t at = max(0, self.key_size)
        return self.written[at:at + self.value_size]

    @property
    def headers(self):
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(self.written) + max(0, self.key_size) + self.value_size
        cdef list headers = []
        for _ in range(_read_zigzag(&at)):
            name = _read_sized(&at).decode()
            headers.append((name, _read_sized(&at)))
        return headers

    @property
    def self_describing_value(self):
        return self.record().self_describing_value

    def record(self):
        """The same as a ``Record``."""
        return Record(self.topic, self.key, self.value, self.headers, self.timestamp_ms, self.schema)

    def __eq__(self, other):
        return self.record() == (other.record() if type(other) is WrittenRecord else other)

    def __repr__(self):
        return repr(self.record())


cdef int64_t _read_zigzag(const uint8_t** at) noexcept:
    cdef uint64_t number = 0
    cdef uint8_t byte
    cdef int shift = 0
    while True:
        byte = at[0][0]
        at[0] += 1
        number |= <uint64_t>(byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return <int64_t>(number >> 1) ^ -<int64_t>(number & 1)


cdef bytes _read_sized(const uint8_t** at):
    cdef Py_ssize_t size = _read_zigzag(at)
    at[0] += size
    return PyBytes_FromStringAndSize(<const char*>at[0] - size, size)


cdef WrittenRecord _written(record):
    """Python's record, written."""
    cdef _Buffer buffer = _Buffer()
    cdef WrittenRecord written = WrittenRecord.__new__(WrittenRecord)
    cdef bytes key = record.key, value = record.value
    cdef list headers = record.headers
    if key is not None:
        buffer.put_bytes(key)
    buffer.put_bytes(value)
    buffer.zigzag(len(headers))
    for header in headers:
        buffer.header(header)
    written.topic, written.schema, written.timestamp_ms = record.topic, record.schema, record.timestamp_ms
    written.key_size = -1 if key is None else PyBytes_GET_SIZE(key)
    written.value_size = PyBytes_GET_SIZE(value)
    written.written = buffer.taken()
    return written


@cython.final
cdef class _Symbol:
    """A word of an enumeration, and its place in it."""

    cdef bytes text
    cdef Py_ssize_t place

    def __init__(self, str text, Py_ssize_t place):
        self.text, self.place = text.encode(), place


@cython.final
cdef class _Status:
    """What a spelling of a status means; ``type`` is its header as a batch has it, ``type_bytes`` those of name and value."""

    cdef str name
    cdef int rank
    cdef _Symbol symbol
    cdef bytes normalized, type
    cdef Py_ssize_t type_bytes


cdef class FastEncoder:
    """Makes the records of fast-path reports.

    Args:
        layout: each of ``FIELD_NAMES`` in order: its name, its kind (``text``, ``boolean``, ``number``, ``symbol``), whether
            it may be null, and an enumeration's symbols.
        avro: values are Avro; else JSON.
        head: what each value begins with.
        statuses: by the spelling: rank, symbol, ``ce_type`` header, spelling, case folded, as UTF-8.
        failed: the symbol of a failure.
        no_error, unknown_error: category and retry of no error, and of a failure without a code.
        error_of: from the present code and description and whether it failed to the code, category and retry.
        normalize: of a word of an open list.
        sources: the symbols for a message time of the provider's, and for one that stands in for it.
        topic, schema: the record's.
        overhead_bytes, header_bytes: of a record, and of each of its headers, beside what is in them.
        max_record_bytes: a record that could be larger needs the slow path.
    """

    cdef bytes head
    cdef bint avro
    # of JSON: what stands before each value
    cdef const char* name_at[FIELDS]
    cdef Py_ssize_t name_size[FIELDS]
    cdef Py_ssize_t names_size
    # of each field its words by name
    cdef list symbols
    cdef bint nullable[FIELDS]
    cdef Kind kinds[FIELDS]
    cdef Value values[ALL_VALUES]
    cdef const char* wire_names[27][5]
    cdef int wire_places[27][5]
    cdef dict statuses, normalized
    cdef str failed, topic
    cdef object schema, error_of, normalize
    # each a pair of symbols, by place: category and retry; of the provider, of the receipt
    cdef tuple no_error, unknown_error, sources
    # what the records of a callback have in common: headers as a batch has them, with the names of those between
    cdef bytes until_id, source, until_subject, until_position, total
    cdef Py_ssize_t header_count, shared_bytes
    cdef int64_t received_at_ms
    cdef char event_id[32]
    cdef Py_ssize_t overhead_bytes, header_bytes, max_record_bytes
    cdef _Buffer buffer
    # what else than the report holds bytes that ``values`` points to; and what holds those of ``wire_names`` and ``name_at``
    cdef list held, held_names

    def __init__(self, list layout, *, bint avro, bytes head, dict statuses, str failed, tuple no_error, tuple unknown_error,
                 error_of, normalize, tuple sources, str topic, schema, Py_ssize_t overhead_bytes,
                 Py_ssize_t header_bytes, Py_ssize_t max_record_bytes):
        if tuple([name for name, _, _, _ in layout]) != FIELD_NAMES:
            raise ValueError("the event has other fields than the compiled encoder knows; compile it anew")
        self.held_names = []
        for name, place in WIRE_NAMES.items():
            self._know(name.encode(), place)
        kinds = {"text": TEXT, "boolean": BOOLEAN, "number": NUMBER, "symbol": SYMBOL}
        self.symbols, self.names_size = [], 0
        cdef bytes before
        for index, (name, kind, nullable, symbols) in enumerate(layout):
            self.kinds[index], self.nullable[index] = kinds[kind], nullable
            before = (b'{"' if index == 0 else b',"') + name.encode() + b'":'
            self.held_names.append(before)
            self.name_at[index], self.name_size[index] = PyBytes_AS_STRING(before), PyBytes_GET_SIZE(before)
            self.names_size += self.name_size[index]
            self.symbols.append({symbol: _Symbol(symbol, place) for place, symbol in enumerate(symbols)})
        self.avro, self.head, self.failed, self.topic, self.schema = avro, head, failed, topic, schema
        self.error_of, self.normalize = error_of, normalize
        self.no_error, self.unknown_error = self._errors(*no_error), self._errors(*unknown_error)
        self.sources = tuple([self.symbols[MESSAGE_TIME_SOURCE][source] for source in sources])
        self.overhead_bytes, self.header_bytes, self.max_record_bytes = overhead_bytes, header_bytes, max_record_bytes
        self.normalized = {}
        self.held = []
        self.buffer = _Buffer()
        self.statuses = {spelled: self._status(*meaning) for spelled, meaning in statuses.items()}

    def _status(self, int rank, str name, tuple header, bytes normalized):
        cdef _Status status = _Status()
        status.name, status.rank, status.symbol, status.normalized = name, rank, self.symbols[STATUS][name], normalized
        status.type_bytes = self.buffer.header(header)
        status.type = self.buffer.taken()
        return status

    def _errors(self, str category, str retry):
        return self.symbols[ERROR_CATEGORY][category], self.symbols[ERROR_RETRY][retry]

    cdef int _know(self, bytes name, int place) except -1:
        cdef Py_ssize_t size = len(name), index = 0
        while index < OF_A_LENGTH and self.wire_names[size][index] is not NULL:
            index += 1
        if size > LONGEST_NAME or index == OF_A_LENGTH:
            raise ValueError("no room for the wire's names")
        self.held_names.append(name)
        self.wire_names[size][index], self.wire_places[size][index] = PyBytes_AS_STRING(name), place
        return 0

    def records(self, list items, tuple common):
        """The record of each item, and its status; None in their places where an item needs the slow path.

        Args:
            items: the JSON text of each item, as objects with a buffer.
            common: see ``bridge.encode.headers.CallbackHeaders.common``.
        """
        cdef list records = [], statuses = []
        cdef Py_ssize_t index = 0
        cdef Py_buffer raw
        cdef Text text
        cdef _Status status
        self._share(*common)
        for item in items:
            index += 1
            record = name = None
            PyObject_GetBuffer(item, &raw, PyBUF_SIMPLE)
            try:
                text.at = <const char*>raw.buf
                text.end = text.at + raw.len
                if self._read(&text):
                    status = self.statuses.get(_text_of(&self.values[WIRE_STATUS]))
                    if status is not None and self._event(status):
                        record = self._record(status, index)
                        name = None if record is None else status.name
            finally:
                PyBuffer_Release(&raw)
            records.append(record)
            statuses.append(name)
        return records, statuses

    def _share(self, tuple specversion, tuple source, tuple time, tuple content_type, list after, Py_ssize_t total,
               int64_t received_at_ms):
        """Take what the records of one callback share."""
        cdef _Buffer buffer = self.buffer
        buffer.size = 0  # whatever an exception left there
        cdef Py_ssize_t size = buffer.header(specversion)
        buffer.sized(b"ce_id")
        buffer.zigzag(sizeof(self.event_id))
        self.until_id = buffer.taken()
        size += buffer.header(source)
        self.source = buffer.taken()
        size += buffer.header(time)
        buffer.sized(b"ce_subject")
        self.until_subject = buffer.taken()
        size += buffer.header(content_type)
        for header in after:
            size += buffer.header(header)
        buffer.sized(b"bridge_position")
        self.until_position = buffer.taken()
        self.total = b"/%d" % total
        self.received_at_ms = received_at_ms
        self.header_count = 8 + len(after)
        self.shared_bytes = size + len("ce_id") + len("ce_subject") + len("bridge_position")

    cdef bint _read(self, Text* text) except -1:
        """The fields of a report into their values, which point into its text; False where it needs the slow path."""
        cdef int index, following
        cdef Value name, value
        for index in range(ALL_VALUES):
            self.values[index].at, self.values[index].size = NULL, 0
        if _space(text) != c'{':
            return False
        text.at += 1
        while True:
            if not _string(text, &name) or _space(text) != c':':
                return False  # an empty object as well, which has no MessageId
            text.at += 1
            following = _space(text)
            index = self._place_of(&name)
            if index < 0:
                return False
            value.at, value.size = NULL, 0
            if following == c'"':
                if not _string(text, &value):
                    return False
                if (index == WIRE_TIMESTAMP or index == WIRE_EXPIRES) and value.size == 0:
                    return False
            elif following == c'n':
                if not _null(text):
                    return False
            elif not ((index == WIRE_TIMESTAMP or index == WIRE_EXPIRES) and _digits(text, &value)):
                return False
            self.values[index].at, self.values[index].size = value.at, value.size
            following = _space(text)
            text.at += 1
            if following == c'}':
                break
            if following != c',':
                return False
        for index in range(ALL_VALUES):
            _blank_is_absent(&self.values[index])
        return True

    cdef inline int _place_of(self, Value* name) noexcept:
        """Where the value of a name is put; -1 of an unknown one."""
        cdef Py_ssize_t index
        if name.size > LONGEST_NAME:
            return -1
        for index in range(OF_A_LENGTH):
            if self.wire_names[name.size][index] is NULL:
                return -1
            if memcmp(self.wire_names[name.size][index], name.at, name.size) == 0:
                return self.wire_places[name.size][index]
        return -1

    cdef bint _word(self, int index, Value* value) except -1:
        """A word of one of the open lists, normalized; False where it needs the slow path."""
        text = _text_of(value)
        if text is None:
            return _take(None, &self.values[index])
        normalized = self.normalized.get(text)
        if normalized is None:
            normalized = self.normalize(text) or ""
            if len(<str>text) > NORMALIZED_BYTES or len(self.normalized) >= NORMALIZED_MOST:
                self.normalized.clear()  # whatever comes, it stays small
            self.normalized[text] = normalized
        self.held.append(normalized)
        return _take(normalized, &self.values[index])

    cdef void _symbol(self, int index, _Symbol symbol) noexcept:
        """The encoder holds it."""
        self.values[index].number = symbol.place
        self.values[index].at, self.values[index].size = PyBytes_AS_STRING(symbol.text), PyBytes_GET_SIZE(symbol.text)

    cdef inline void _number(self, int index, int64_t number) noexcept:
        self.values[index].number = number
        self.values[index].absent = False

    cdef bint _event(self, _Status status) except -1:
        """What a report means, of the values as read; False where it needs the slow path."""
        cdef int64_t time = self.received_at_ms, expires = 0
        cdef Value* values = self.values
        cdef bint dated = values[WIRE_TIMESTAMP].at is not NULL, expiring = values[WIRE_EXPIRES].at is not NULL
        self.held.clear()
        if dated:
            time = _time_ms(&values[WIRE_TIMESTAMP])
        if expiring:
            expires = _time_ms(&values[WIRE_EXPIRES])
        if values[MESSAGE_ID].at is NULL or time == SLOW_PATH or expires == SLOW_PATH:
            return False
        self._number(TASK_ID_DEFAULTED, values[TASK_ID].at is NULL)
        if values[TASK_ID].at is NULL:
            values[TASK_ID] = values[MESSAGE_ID]
        self._symbol(STATUS, status.symbol)
        values[PROVIDER_STATUS] = values[WIRE_STATUS]
        self._number(STATUS_RANK, status.rank)
        self._number(MESSAGE_TIME, time)
        self._symbol(MESSAGE_TIME_SOURCE, <_Symbol>self.sources[not dated])
        self._number(RECEIVED_AT, self.received_at_ms)
        self._number(CONVERSATION_EXPIRES_AT, expires)
        values[CONVERSATION_EXPIRES_AT].absent = not expiring
        if not (
            self._error(status)
            and self._word(CONVERSATION_TYPE, &values[WIRE_CONVERSATION_TYPE])
            and self._word(MESSAGE_FRAME_TYPE, &values[WIRE_FRAME_TYPE])
            and self._word(CONTENT_TYPE, &values[WIRE_CONTENT_TYPE])
        ):
            return False
        if values[MESSAGE_FRAME_TYPE].at is NULL and values[TEMPLATE_CODE].at is not NULL:
            values[MESSAGE_FRAME_TYPE].at, values[MESSAGE_FRAME_TYPE].size = b"template", 8
        return True

    cdef bint _error(self, _Status status) except -1:
        cdef Value* values = self.values
        cdef tuple meaning
        if values[ERROR_CODE].at is NULL and values[ERROR_DESCRIPTION].at is NULL:
            meaning = self.unknown_error if status.name == self.failed else self.no_error
        else:
            code, category, retry = self.error_of(
                _text_of(&values[ERROR_CODE]), _text_of(&values[ERROR_DESCRIPTION]), status.name == self.failed
            )
            self.held.append(code)
            if not _take(code, &values[ERROR_CODE]):
                return False
            meaning = self._errors(category, retry)
        self._symbol(ERROR_CATEGORY, <_Symbol>meaning[0])
        self._symbol(ERROR_RETRY, <_Symbol>meaning[1])
        return True

    cdef object _record(self, _Status status, Py_ssize_t position):
        """The record of the event in hand; None where it could be too large."""
        cdef Value* message = &self.values[MESSAGE_ID]
        cdef _Buffer buffer = self.buffer
        self._digest(status.normalized)
        self.values[EVENT_ID].at, self.values[EVENT_ID].size = self.event_id, sizeof(self.event_id)
        cdef char place[20]
        cdef Py_ssize_t place_size = _decimal(place, position) - place
        buffer.put(message.at, message.size)
        self._value()
        cdef Py_ssize_t value_size = buffer.size - message.size
        buffer.zigzag(self.header_count)
        buffer.put_bytes(self.until_id)
        buffer.put(self.event_id, sizeof(self.event_id))
        buffer.put_bytes(self.source)
        buffer.put_bytes(status.type)
        buffer.put_bytes(self.until_subject)
        buffer.zigzag(message.size)
        buffer.put(message.at, message.size)
        buffer.put_bytes(self.until_position)
        buffer.zigzag(place_size + PyBytes_GET_SIZE(self.total))
        buffer.put(place, place_size)
        buffer.put_bytes(self.total)
        cdef Py_ssize_t size = (
            self.overhead_bytes + self.header_bytes * self.header_count + self.shared_bytes + status.type_bytes + value_size
            + 2 * message.size + sizeof(self.event_id) + place_size + PyBytes_GET_SIZE(self.total)
        )
        cdef WrittenRecord record = WrittenRecord.__new__(WrittenRecord)
        record.topic, record.schema, record.timestamp_ms = self.topic, self.schema, self.received_at_ms
        record.key_size, record.value_size, record.written = message.size, value_size, buffer.taken()
        return record if size <= self.max_record_bytes else None

    cdef int _digest(self, bytes state) except -1:
        """See ``bridge.report.event.event_id``."""
        cdef Value* values = self.values
        cdef Value* to = &values[RECIPIENT] if values[RECIPIENT].at is not NULL else &values[USER_ID]
        cdef _Buffer buffer = self.buffer
        buffer.big_endian(values[MESSAGE_ID].size, 4)
        buffer.put(values[MESSAGE_ID].at, values[MESSAGE_ID].size)
        buffer.big_endian(to.size, 4)
        buffer.put(to.at, to.size)
        buffer.big_endian(PyBytes_GET_SIZE(state), 4)
        buffer.put_bytes(state)
        buffer.big_endian(values[ERROR_CODE].size, 4)
        buffer.put(values[ERROR_CODE].at, values[ERROR_CODE].size)
        cdef bytes digest = sha256(buffer.taken()).digest()
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(digest)
        cdef int index
        for index in range(16):
            self.event_id[2 * index], self.event_id[2 * index + 1] = HEX[at[index] >> 4], HEX[at[index] & 15]
        return 0

    cdef int _value(self) except -1:
        """The event in hand, behind what is in the buffer."""
        cdef Py_ssize_t most = PyBytes_GET_SIZE(self.head) + self.names_size + FIELDS * FIELD_BYTES + 1
        cdef int index
        for index in range(FIELDS):
            most += self.values[index].size
        self.buffer.reserve(most)
        cdef char* to = self.buffer.data + self.buffer.size
        to = _copied(to, PyBytes_AS_STRING(self.head), PyBytes_GET_SIZE(self.head))
        if self.avro:
            for index in range(FIELDS):
                to = self._avro_value(to, index)
        else:
            for index in range(FIELDS):
                to = _copied(to, self.name_at[index], self.name_size[index])
                to = self._json_value(to, index)
            to = _copied(to, b"}", 1)
        self.buffer.size = to - self.buffer.data
        return 0

    cdef inline char* _json_value(self, char* to, int index) noexcept:
        """Texts are plain, so as they are."""
        cdef Value* value = &self.values[index]
        cdef Kind kind = self.kinds[index]
        if kind == TEXT or kind == SYMBOL:
            if value.at is NULL:
                return _copied(to, b"null", 4)
            to[0] = c'"'
            to = _copied(to + 1, value.at, value.size)
            to[0] = c'"'
            return to + 1
        if kind == BOOLEAN:
            return _copied(to, b"true", 4) if value.number else _copied(to, b"false", 5)
        if value.absent:
            return _copied(to, b"null", 4)
        return _decimal(to, value.number)

    cdef inline char* _avro_value(self, char* to, int index) noexcept:
        cdef Value* value = &self.values[index]
        cdef Kind kind = self.kinds[index]
        if kind == BOOLEAN:
            to[0] = value.number != 0
            return to + 1
        if self.nullable[index]:
            if value.absent or (kind == TEXT and value.at is NULL):
                to[0] = 0
                return to + 1
            to[0] = 2
            to += 1
        if kind != TEXT:
            return _zigzag(to, value.number)
        return _copied(_zigzag(to, value.size), value.at, value.size)


cdef uint32_t M = 0x5BD1E995
# Of a value without a key, what decides on its place.
cdef Py_ssize_t UNKEYED_BYTES = 64


def murmur2(bytes data) -> int:
    """As ``bridge.kafka.partition.murmur2_python``."""
    return _murmur2(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef uint32_t _murmur2(const uint8_t* data, Py_ssize_t size) noexcept:
    cdef Py_ssize_t rest = size & 3, at = 0
    cdef uint32_t value = <uint32_t>0x9747B28C ^ <uint32_t>size, word
    while at < size - rest:
        word = (
            <uint32_t>data[at] | <uint32_t>data[at + 1] << 8 | <uint32_t>data[at + 2] << 16 | <uint32_t>data[at + 3] << 24
        ) * M
        value = value * M ^ (word ^ word >> 24) * M
        at += 4
    if rest:
        word = 0
        while rest:
            rest -= 1
            word = word << 8 | data[at + rest]
        value = (value ^ word) * M
    value = (value ^ value >> 13) * M
    return value ^ value >> 15


def by_lane(records, dict lanes) -> dict:
    """As ``bridge.delivery.layout.by_lane_python``."""
    cdef dict chosen = {}
    cdef WrittenRecord written
    cdef Py_ssize_t size
    cdef uint32_t hash
    cdef list of_topic, of_lane
    for record in records:
        written = record if type(record) is WrittenRecord else _written(record)
        size = written.key_size if written.key_size >= 0 else min(written.value_size, UNKEYED_BYTES)
        hash = _murmur2(<const uint8_t*>PyBytes_AS_STRING(written.written), size)
        of_topic = lanes[written.topic]
        lane = of_topic[(hash & 0x7FFFFFFF) % len(of_topic)]
        of_lane = chosen.get(lane)
        if of_lane is None:
            of_lane = chosen[lane] = []
        of_lane.append(record)
    return chosen


def bytes_of(list records) -> int:
    """As ``bridge.delivery.lane.bytes_of_python``."""
    cdef Py_ssize_t size = 0
    for record in records:
        if type(record) is WrittenRecord:
            size += max(0, (<WrittenRecord>record).key_size) + (<WrittenRecord>record).value_size
        else:
            size += len(record.key or b"") + len(record.value)
    return size


def packed(list records) -> bytes:
    """As ``bridge.spool.rows.encode_body_python``."""
    cdef _Buffer buffer = _Buffer()
    cdef WrittenRecord written
    cdef const char* at
    cdef Py_ssize_t size = 0, count
    buffer.array(len(records))
    for record in records:
        written = record if type(record) is WrittenRecord else _written(record)
        buffer.array(6)
        at = PyUnicode_AsUTF8AndSize(written.topic, &size)
        buffer.text(at, size)
        at = PyBytes_AS_STRING(written.written)
        if written.key_size < 0:
            buffer.nil()
        else:
            buffer.binary(at, written.key_size)
            at += written.key_size
        buffer.binary(at, written.value_size)
        at += written.value_size
        count = _read_zigzag(<const uint8_t**>&at)
        buffer.array(count)
        for _ in range(count):
            buffer.array(2)
            size = _read_zigzag(<const uint8_t**>&at)
            buffer.text(at, size)
            at += size
            size = _read_zigzag(<const uint8_t**>&at)
            buffer.binary(at, size)
            at += size
        buffer.big_endian(0xCF if written.timestamp_ms >= 0 else 0xD3, 1)
        buffer.big_endian(<uint64_t>written.timestamp_ms, 8)
        if written.schema is None:
            buffer.nil()
        else:
            buffer.binary(PyBytes_AS_STRING(<bytes>written.schema), PyBytes_GET_SIZE(<bytes>written.schema))
    return buffer.taken()


cdef inline Py_ssize_t _size_of(int64_t number) noexcept:
    """Bytes of a zigzag varint."""
    cdef uint64_t rest = <uint64_t>(number << 1 ^ number >> 63)
    cdef Py_ssize_t size = 1
    while rest >= 0x80:
        size += 1
        rest >>= 7
    return size


cdef class BatchWriter:
    """The records of one batch (v2), uncompressed, as ``bridge.kafka.batch`` has it in Python.

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
        cdef WrittenRecord written = record if type(record) is WrittenRecord else _written(record)
        cdef _Buffer buffer = self.buffer
        cdef int64_t time = written.timestamp_ms
        cdef int64_t since = time - self.first_ms if self.count else 0
        cdef Py_ssize_t key_size = max(0, written.key_size), value_size = PyBytes_GET_SIZE(prefix) + written.value_size
        cdef const char* at = PyBytes_AS_STRING(written.written)
        cdef Py_ssize_t size = (
            1 + _size_of(since) + _size_of(self.count) + _size_of(written.key_size) + _size_of(value_size)
            + PyBytes_GET_SIZE(prefix) + PyBytes_GET_SIZE(written.written)
        )
        if self.count and buffer.size + size + _size_of(size) > self.room:
            return False
        buffer.reserve(size + 10)
        cdef char* to = _zigzag(buffer.data + buffer.size, size)
        to[0] = 0
        to = _zigzag(_zigzag(_zigzag(to + 1, since), self.count), written.key_size)
        to = _zigzag(_copied(to, at, key_size), value_size)
        to = _copied(to, PyBytes_AS_STRING(prefix), PyBytes_GET_SIZE(prefix))
        to = _copied(to, at + key_size, PyBytes_GET_SIZE(written.written) - key_size)
        buffer.size = to - buffer.data
        if not self.count:
            self.first_ms = time
        self.last_ms = max(self.last_ms, time)
        self.count += 1
        return True

    def written(self) -> bytes:
        """The records' bytes."""
        return PyBytes_FromStringAndSize(self.buffer.data, self.buffer.size)
