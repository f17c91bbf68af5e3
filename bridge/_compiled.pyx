# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled part: plain reports from their fields to the record in one step, batches of records, the hash of keys.

Each has a twin in Python. A report is plain when nothing about it needs a decision: a documented status as documented, times
that are times, no field that nobody knows, and text of ASCII that is not escaped. All others are left out (None in their place)
and go the way in Python, which alone defines what a report means; ``tests/unit/test_compiled.py`` holds that both ways give the
same bytes. What is read here msgspec has found to be JSON; every byte is read before ``_Text.end``, and written behind
``_Buffer.reserve``.
"""

from cpython.buffer cimport Py_buffer, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_NoMemory
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from hashlib import sha256


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    object PyUnicode_FromStringAndSize(const char* text, Py_ssize_t size)


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
    "TemplateName": TEMPLATE_NAME, "Language": TEMPLATE_LANGUAGE, "FromUserId": SENDER_USER_ID,
    "FromParentUserId": SENDER_PARENT_USER_ID, "FromUserName": SENDER_USER_NAME,
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
    """A text of Python's, absent where it is None or empty."""
    value.at, value.size = NULL, 0
    cdef Py_ssize_t size = 0
    cdef const char* at
    if text is not None:
        at = PyUnicode_AsUTF8AndSize(text, &size)
        if size:
            value.at, value.size = at, size
    return 0


cdef object _text_of(Value* value):
    """The text in Python; None where it is absent."""
    return None if value.at is NULL else PyUnicode_FromStringAndSize(value.at, value.size)


cdef int64_t _time_ms(Value* value) noexcept:
    """Milliseconds since the epoch, of ten or thirteen digits; else NOT_PLAIN."""
    cdef int64_t number = 0
    cdef Py_ssize_t index
    if value.size != 10 and value.size != 13:
        return NOT_PLAIN
    for index in range(value.size):
        if not c'0' <= value.at[index] <= c'9':
            return NOT_PLAIN
        number = 10 * number + (value.at[index] - c'0')
    if MIN_MS <= number < END_MS:
        return number
    return number * 1000 if MIN_SECONDS <= number < END_SECONDS else NOT_PLAIN


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
        if char < 0x20 or char >= 0x80 or char == c'\\':
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
    cdef Value values[ALL_VALUES]
    cdef const char* wire_names[27][5]
    cdef int wire_places[27][5]
    cdef dict statuses, folded
    cdef object failed, record, topic, schema, error_of, fold
    cdef tuple no_error, unknown_error, sources
    cdef Py_ssize_t overhead_bytes, header_bytes, max_record_bytes
    cdef _Buffer buffer
    # what else than the report holds bytes that ``values`` points to; and what holds those of ``wire_names``
    cdef list held, held_names

    def __init__(self, list layout, *, bint avro, bytes head, dict statuses, str failed, tuple no_error, tuple unknown_error,
                 error_of, fold, tuple sources, record, str topic, schema, Py_ssize_t overhead_bytes,
                 Py_ssize_t header_bytes, Py_ssize_t max_record_bytes):
        if tuple([name for name, _, _, _ in layout]) != FIELD_NAMES:
            raise ValueError("the event has other fields than the compiled encoder knows; compile it anew")
        self.held_names = []
        for name, place in WIRE_NAMES.items():
            self._know(name.encode(), place)
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

    cdef int _know(self, bytes name, int place) except -1:
        cdef Py_ssize_t size = len(name), index = 0
        while index < OF_A_LENGTH and self.wire_names[size][index] is not NULL:
            index += 1
        if size > LONGEST_NAME or index == OF_A_LENGTH:
            raise ValueError("no room for the wire's names")
        self.held_names.append(name)
        self.wire_names[size][index], self.wire_places[size][index] = PyBytes_AS_STRING(name), place
        return 0

    def records(self, list items, Shared shared):
        """The record of each item, and its status; None in their places where an item is not plain.

        Args:
            items: the JSON text of each item, as objects with a buffer.
            shared: what the records have in common.
        """
        cdef list records = [], statuses = []
        cdef Py_ssize_t index = 0
        cdef Py_buffer raw
        cdef Text text
        for item in items:
            index += 1
            record = status = None
            PyObject_GetBuffer(item, &raw, PyBUF_SIMPLE)
            try:
                text.at = <const char*>raw.buf
                text.end = text.at + raw.len
                if self._read(&text):
                    entry = self.statuses.get(_text_of(&self.values[WIRE_STATUS]))
                    if entry is not None and self._event(entry, shared):
                        record = self._record(entry, index, shared)
                        status = None if record is None else entry[1]
            finally:
                PyBuffer_Release(&raw)
            records.append(record)
            statuses.append(status)
        return records, statuses

    cdef bint _read(self, Text* text) except -1:
        """The fields of a report into their values, which point into its text; False where it is not plain."""
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

    cdef int _word(self, int index, Value* value) except -1:
        """A word of one of the open lists, folded."""
        text = _text_of(value)
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

    cdef bint _event(self, tuple entry, Shared shared) except -1:
        """What a report means, of the values as read; False where it is not plain."""
        cdef int64_t time = shared.received_at_ms, expires = 0
        cdef Value* values = self.values
        cdef bint dated = values[WIRE_TIMESTAMP].at is not NULL, expiring = values[WIRE_EXPIRES].at is not NULL
        self.held.clear()
        self.buffer.size = 0  # whatever an exception left there
        if dated:
            time = _time_ms(&values[WIRE_TIMESTAMP])
        if expiring:
            expires = _time_ms(&values[WIRE_EXPIRES])
        if values[MESSAGE_ID].at is NULL or time == NOT_PLAIN or expires == NOT_PLAIN:
            return False
        self._number(TASK_ID_DEFAULTED, values[TASK_ID].at is NULL)
        if values[TASK_ID].at is NULL:
            values[TASK_ID] = values[MESSAGE_ID]
        self._symbol(STATUS, entry[1])
        values[PROVIDER_STATUS] = values[WIRE_STATUS]
        self._number(STATUS_RANK, entry[0])
        self._number(MESSAGE_TIME, time)
        self._symbol(MESSAGE_TIME_SOURCE, self.sources[not dated])
        self._number(RECEIVED_AT, shared.received_at_ms)
        self._error(entry[1])
        self._word(CONVERSATION_TYPE, &values[WIRE_CONVERSATION_TYPE])
        self._number(CONVERSATION_EXPIRES_AT, expires)
        values[CONVERSATION_EXPIRES_AT].absent = not expiring
        self._word(MESSAGE_FRAME_TYPE, &values[WIRE_FRAME_TYPE])
        if values[MESSAGE_FRAME_TYPE].at is NULL and values[TEMPLATE_CODE].at is not NULL:
            values[MESSAGE_FRAME_TYPE].at, values[MESSAGE_FRAME_TYPE].size = b"template", 8
        self._word(CONTENT_TYPE, &values[WIRE_CONTENT_TYPE])
        return True

    cdef int _error(self, object status) except -1:
        cdef Value* values = self.values
        if values[ERROR_CODE].at is NULL and values[ERROR_DESCRIPTION].at is NULL:
            meaning = self.unknown_error if status == self.failed else self.no_error
        else:
            code, *meaning = self.error_of(
                _text_of(&values[ERROR_CODE]), _text_of(&values[ERROR_DESCRIPTION]), status == self.failed
            )
            self.held.append((code, meaning))
            _take(code, &values[ERROR_CODE])
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
