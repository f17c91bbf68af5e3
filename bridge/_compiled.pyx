# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled part: fast-path reports from their fields to the record in one step, batches of records, the hash of keys.

Each has a twin in Python. A report takes the fast path when nothing about it needs a decision: a documented status as documented, times
that are times, text where text belongs. All others are left out (None in their place) and go the way in Python, which alone
defines what a report means; ``tests/unit/test_compiled.py`` holds that both ways give the same bytes. What is read here need not
be JSON; every byte is read before ``Text.end``, and written behind ``_Buffer.reserve``. Which fields there are, and how each is
read, comes from the table of fields when an encoder is made; only those whose value is derived are named here.
"""

cimport cython
from cpython.buffer cimport Py_buffer, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_NoMemory
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from hashlib import sha256

from bridge.record import Record


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    object PyUnicode_FromStringAndSize(const char* text, Py_ssize_t size)


# Bounds of what an encoder is made of; what is beyond them is refused then.
cdef enum:
    MOST_FIELDS = 64, LONGEST_NAME = 64, OF_A_LENGTH = 12, MOST_NAMES = 128

# By whose name a field was given: one of the places of names, or these.
cdef enum:
    BY_NONE = -1, BY_SEVERAL = -2

cdef enum Kind:
    TEXT, BOOLEAN, NUMBER, SYMBOL

cdef struct Value:
    # Of TEXT and SYMBOL; a text that is absent has no ``at``.
    const char* at
    Py_ssize_t size
    # Of the others; of SYMBOL its place in the enumeration.
    int64_t number
    bint absent
    # Of a text: whether it holds more than printable ASCII; whether JSON escapes some of it.
    bint special, escaped

cdef int64_t SLOW_PATH = -1
# Of nesting in a field that nobody knows.
cdef int MOST_LEVELS = 32
# Of such fields in a report: each is compared with all before it.
cdef Py_ssize_t MOST_OTHERS = 32

cdef int64_t MIN_SECONDS = 10**9, END_SECONDS = 10**10, MIN_MS = 10**12, END_MS = 10**13
# Whatever comes, what is remembered of it stays small.
cdef Py_ssize_t REMEMBERED_BYTES = 64, REMEMBERED_MOST = 1024
# Of the last answers; a power of two.
cdef enum:
    SLOTS = 64
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


cdef int _take(object text, Value* value) except -1:
    """A text of Python's, absent where it is None or empty."""
    cdef Py_ssize_t size = 0
    cdef const char* at
    value.at, value.size, value.special, value.escaped = NULL, 0, False, False
    if text is not None:
        at = PyUnicode_AsUTF8AndSize(text, &size)
        if size:
            value.at, value.size = at, size
            _look(value)
    return 0


cdef void _look(Value* value) noexcept:
    """What characters it has."""
    cdef Py_ssize_t index
    cdef uint8_t char
    value.special = value.escaped = False
    for index in range(value.size):
        char = <uint8_t>value.at[index]
        if char < 0x20:
            value.special = value.escaped = True
        elif char >= 0x7F:
            value.special = True
        elif char == c'"' or char == c'\\':
            value.escaped = True


cdef bint _is_utf8(const char* text, Py_ssize_t size) noexcept:
    cdef const uint8_t* at = <const uint8_t*>text
    cdef const uint8_t* end = at + size
    cdef uint32_t point
    cdef int more, index
    while at < end:
        if at[0] < 0x80:
            at += 1
            continue
        if 0xC2 <= at[0] < 0xE0:
            more, point = 1, at[0] & 0x1F
        elif 0xE0 <= at[0] < 0xF0:
            more, point = 2, at[0] & 0x0F
        elif 0xF0 <= at[0] < 0xF5:
            more, point = 3, at[0] & 0x07
        else:
            return False
        if end - at <= more:
            return False
        for index in range(1, more + 1):
            if at[index] & 0xC0 != 0x80:
                return False
            point = point << 6 | at[index] & 0x3F
        if more == 2 and (point < 0x800 or 0xD800 <= point < 0xE000):
            return False
        if more == 3 and not 0x10000 <= point < 0x110000:
            return False
        at += more + 1
    return True


cdef inline char* _utf8(char* to, uint32_t point) noexcept:
    """A character, which is no surrogate; 4 bytes at most."""
    if point < 0x80:
        to[0] = <char>point
        return to + 1
    if point < 0x800:
        to[0] = <char>(0xC0 | point >> 6)
        to[1] = <char>(0x80 | point & 0x3F)
        return to + 2
    if point < 0x10000:
        to[0] = <char>(0xE0 | point >> 12)
        to[1] = <char>(0x80 | point >> 6 & 0x3F)
        to[2] = <char>(0x80 | point & 0x3F)
        return to + 3
    to[0] = <char>(0xF0 | point >> 18)
    to[1] = <char>(0x80 | point >> 12 & 0x3F)
    to[2] = <char>(0x80 | point >> 6 & 0x3F)
    to[3] = <char>(0x80 | point & 0x3F)
    return to + 4


cdef char* _escaped(char* to, const char* at, Py_ssize_t size) noexcept:
    """A text as it stands in JSON; 6 bytes for each of its own at most."""
    cdef Py_ssize_t index
    cdef uint8_t char
    for index in range(size):
        char = <uint8_t>at[index]
        if char >= 0x20 and char != c'"' and char != c'\\':
            to[0] = <char>char
            to += 1
            continue
        to[0] = c'\\'
        if char == c'"' or char == c'\\':
            to[1] = <char>char
        elif char == c'\n':
            to[1] = c'n'
        elif char == c'\r':
            to[1] = c'r'
        elif char == c'\t':
            to[1] = c't'
        elif char == 8:
            to[1] = c'b'
        elif char == 12:
            to[1] = c'f'
        else:
            to = _copied(to, b"\\u00", 4)
            to[0], to[1] = HEX[char >> 4], HEX[char & 15]
        to += 2
    return to


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


cdef inline int _blank_is_absent(Value* value) except -1:
    return 0 if value.size and c' ' < value.at[0] < 0x7F else _blank_is_absent_beyond(value)


cdef int _blank_is_absent_beyond(Value* value) except -1:
    """The same, where the first character does not decide."""
    cdef Py_ssize_t index
    for index in range(value.size):
        if c' ' < value.at[index] < 0x7F:
            return 0
    if not value.special or _text_of(value).isspace():
        value.at, value.size, value.special, value.escaped = NULL, 0, False, False
    return 0


cdef struct Text:
    const char* at
    const char* end


cdef inline int _space(Text* text) noexcept:
    """Passes over white space; what stands there then, 0 at the end."""
    while text.at < text.end and _is_space(text.at[0]):
        text.at += 1
    return text.at[0] if text.at < text.end else 0


# In a word of eight bytes: each of them 1, and the highest bit of each.
cdef uint64_t OF_EACH = 0x0101010101010101, HIGHEST_BITS = 0x8080808080808080


cdef inline const char* _past_plain(const char* at, const char* end) noexcept:
    """Passes over printable ASCII without quotes and backslashes, eight bytes at a time; what stands there then may still be such."""
    cdef uint64_t word
    while end - at >= 8:
        memcpy(&word, at, 8)
        # A carry between bytes can only stop it too early: it comes from a byte that stops it anyway.
        if HIGHEST_BITS & (
            word | word + OF_EACH | word - 0x20 * OF_EACH
            | (word ^ 0x22 * OF_EACH) - OF_EACH | (word ^ 0x5C * OF_EACH) - OF_EACH
        ):
            break
        at += 8
    return at


cdef bint _string(Text* text, Value* value, _Buffer scratch) except -1:
    """The string that begins here, decoded; False where it is none, or none that can be stored.

    Where it is not as it stands, its bytes are in ``scratch``, which has room for all of the text.
    """
    cdef const char* at
    cdef uint8_t char
    cdef bint special = False
    if _space(text) != c'"':
        return False
    at = _past_plain(text.at + 1, text.end)
    while at < text.end:
        char = <uint8_t>at[0]
        if char == c'"':
            value.at, value.size, value.special, value.escaped = text.at + 1, at - text.at - 1, special, False
            text.at = at + 1
            return not special or _is_utf8(value.at, value.size)
        if char == c'\\':
            return _string_with_escapes(text, at, value, scratch)
        if char < 0x20:
            return False
        if char >= 0x7F:
            special = True
        at += 1
    return False


cdef bint _string_with_escapes(Text* text, const char* at, Value* value, _Buffer scratch) except -1:
    """The same, whose first escape stands at ``at``."""
    cdef char* begin = scratch.data + scratch.size
    cdef char* to = _copied(begin, text.at + 1, at - text.at - 1)
    cdef uint8_t char
    while at < text.end:
        char = <uint8_t>at[0]
        at += 1
        if char == c'"':
            value.at, value.size = begin, to - begin
            scratch.size += value.size
            text.at = at
            _look(value)
            return not value.special or _is_utf8(value.at, value.size)
        if char < 0x20:
            return False
        if char == c'\\':
            if at == text.end:
                return False
            char = <uint8_t>at[0]
            at += 1
            if char == c'u':
                at = _unicode_escape(at, text.end, &to)
                if at is NULL:
                    return False
                continue
            char = _meant(char)
            if char == 0:
                return False
        to[0] = <char>char
        to += 1
    return False


cdef inline uint8_t _meant(uint8_t letter) noexcept:
    """What an escape of one letter means; 0 of none."""
    if letter == c'"' or letter == c'\\' or letter == c'/':
        return letter
    if letter == c'n':
        return c'\n'
    if letter == c'r':
        return c'\r'
    if letter == c't':
        return c'\t'
    if letter == c'b':
        return 8
    return 12 if letter == c'f' else 0


cdef const char* _unicode_escape(const char* at, const char* end, char** to) noexcept:
    """Behind the escape whose digits begin here; NULL of none, of NUL and of half of a pair of surrogates."""
    cdef int64_t point = _four_digits(at, end), low
    if point <= 0 or 0xDC00 <= point < 0xE000:
        return NULL
    at += 4
    if 0xD800 <= point < 0xDC00:
        if end - at < 6 or at[0] != c'\\' or at[1] != c'u':
            return NULL
        low = _four_digits(at + 2, end)
        if not 0xDC00 <= low < 0xE000:
            return NULL
        point = 0x10000 + (point - 0xD800 << 10) + low - 0xDC00
        at += 6
    to[0] = _utf8(to[0], <uint32_t>point)
    return at


cdef int64_t _four_digits(const char* at, const char* end) noexcept:
    """Of a hexadecimal number; -1 where they are not there."""
    cdef int64_t number = 0
    cdef int index
    cdef uint8_t char
    if end - at < 4:
        return -1
    for index in range(4):
        char = <uint8_t>at[index] | 0x20
        if c'0' <= at[index] <= c'9':
            number = number << 4 | at[index] - c'0'
        elif c'a' <= char <= c'f':
            number = number << 4 | char - c'a' + 10
        else:
            return -1
    return number


cdef inline bint _literal(Text* text, const char* word, Py_ssize_t size) noexcept:
    if text.end - text.at < size or memcmp(text.at, word, size) != 0:
        return False
    text.at += size
    return True


cdef inline bint _some_digits(Text* text) noexcept:
    cdef const char* begin = text.at
    while text.at < text.end and c'0' <= text.at[0] <= c'9':
        text.at += 1
    return text.at > begin


cdef bint _integer(Text* text, Value* value) noexcept:
    """The integer that begins here, as the text of its digits; a number with more than that stops behind them."""
    value.at, value.special, value.escaped = text.at, False, False
    if text.at < text.end and text.at[0] == c'-':
        text.at += 1
    if text.at < text.end and text.at[0] == c'0':
        text.at += 1
    elif not _some_digits(text):
        return False
    value.size = text.at - value.at
    return True


cdef bint _number(Text* text) noexcept:
    cdef Value value
    if not _integer(text, &value):
        return False
    if text.at < text.end and text.at[0] == c'.':
        text.at += 1
        if not _some_digits(text):
            return False
    if text.at < text.end and (text.at[0] == c'e' or text.at[0] == c'E'):
        text.at += 1
        if text.at < text.end and (text.at[0] == c'+' or text.at[0] == c'-'):
            text.at += 1
        return _some_digits(text)
    return True


cdef bint _any_value(Text* text, int levels, _Buffer scratch) except -1:
    """Passes over the value that begins here; False where it is none, or needs the slow path."""
    cdef Value ignored
    cdef int first = _space(text), following
    if first == c'"':
        return _string(text, &ignored, scratch)
    if first == c't':
        return _literal(text, b"true", 4)
    if first == c'f':
        return _literal(text, b"false", 5)
    if first == c'n':
        return _literal(text, b"null", 4)
    if first != c'{' and first != c'[':
        return _number(text)
    if levels == 0:
        return False
    text.at += 1
    if _space(text) == first + 2:  # in ASCII a closing bracket is its opening one and two, for both kinds
        text.at += 1
        return True
    while True:
        if first == c'{':
            if not _string(text, &ignored, scratch) or _space(text) != c':':
                return False
            text.at += 1
        if not _any_value(text, levels - 1, scratch):
            return False
        following = _space(text)
        text.at += 1
        if following == first + 2:
            return True
        if following != c',':
            return False


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


@cython.final
cdef class _Word:
    """A word of an open list, as it is published; ``value`` points into ``text``."""

    cdef str text
    cdef Value value


@cython.final
cdef class _Answer:
    """A text as it came, and what it means."""

    cdef bytes text
    cdef object answer

    def __init__(self, bytes text, answer):
        self.text, self.answer = text, answer


cdef inline Py_ssize_t _slot(Value* value) noexcept:
    """Where the answer to a text is remembered, by its size, its first and its last byte; it is not empty."""
    return (value.size + <uint8_t>value.at[0] + 31 * <uint8_t>value.at[value.size - 1]) & SLOTS - 1


cdef class FastEncoder:
    """Makes the records of fast-path reports.

    Args:
        layout: each field of the event in order: its name, its kind (``text``, ``boolean``, ``number``, ``symbol``), whether
            it may be null, and an enumeration's symbols.
        wire: each name on the wire: the field it is of, and how that is read (``text``, ``word``, ``time``).
        avro: values are Avro; else JSON.
        head: what each value begins with.
        statuses: by the spelling: rank, symbol, ``ce_type`` header, spelling, case folded, as UTF-8.
        failed: the symbol of a failure.
        no_error, unknown_error: category and retry of no error, and of a failure without a code.
        error_of: from the code on the wire, the description and whether it failed to the code, category and retry.
        word: of a word of an open list, as it is published.
        unknown_name: of a name in extras, as JSON with its colon; None where it is a known one in another spelling.
        sources: the symbols for a message time of the provider's, and for one that stands in for it.
        topic, schema: the record's.
        overhead_bytes, header_bytes: of a record, and of each of its headers, beside what is in them.
        max_record_bytes: a record that could be larger needs the slow path.
    """

    cdef bytes head
    cdef bint avro
    cdef int count
    # of JSON: what stands before each value
    cdef const char* name_at[MOST_FIELDS]
    cdef Py_ssize_t name_size[MOST_FIELDS]
    cdef Py_ssize_t names_size
    # of each field its words by name
    cdef list symbols
    cdef bint nullable[MOST_FIELDS]
    cdef Kind kinds[MOST_FIELDS]
    # those fields that are read as a word, and as a time
    cdef int words_at[MOST_FIELDS]
    cdef int times_at[MOST_FIELDS]
    cdef int word_count, time_count
    cdef Value values[MOST_FIELDS]
    cdef int given[MOST_FIELDS]
    # the names on the wire, by their length
    cdef int names
    cdef int name_field[MOST_NAMES]
    cdef const char* known_at[LONGEST_NAME + 1][OF_A_LENGTH]
    cdef int known[LONGEST_NAME + 1][OF_A_LENGTH]
    # where the fields are whose value is derived
    cdef int event_id_at, message_id, task_id, task_id_defaulted, recipient, user_id, status, provider_status, status_rank
    cdef int message_time, message_time_source, received_at, error_code, error_description, error_category, error_retry
    cdef int message_frame_type, template_code, extras
    cdef dict statuses, words, codes, unknown
    # the last answers by slot, in front of ``statuses`` and ``words``
    cdef list recent_statuses, recent_words
    cdef str failed, topic
    cdef object schema, error_of, word, unknown_name
    # each a pair of symbols, by place: category and retry; of the provider, of the receipt
    cdef tuple no_error, unknown_error, sources
    # what the records of a callback have in common: headers as a batch has them, with the names of those between
    cdef bytes until_id, source, until_subject, until_position, total
    cdef Py_ssize_t header_count, shared_bytes
    cdef int64_t received_at_ms
    cdef char event_id[32]
    cdef Py_ssize_t overhead_bytes, header_bytes, max_record_bytes
    cdef _Buffer buffer
    # of the report in hand: what was decoded; what stands in extras, and by which names; its code as it came, trimmed
    cdef _Buffer decoded, others
    cdef list other_names
    cdef bytes wire_code
    # what else than the report holds bytes that ``values`` points to; and what holds those of ``known_at`` and ``name_at``
    cdef list held, held_names

    def __init__(self, list layout, list wire, *, bint avro, bytes head, dict statuses, str failed, tuple no_error,
                 tuple unknown_error, error_of, word, unknown_name, tuple sources, str topic, schema,
                 Py_ssize_t overhead_bytes, Py_ssize_t header_bytes, Py_ssize_t max_record_bytes):
        self.buffer, self.decoded, self.others = _Buffer(), _Buffer(), _Buffer()
        self.held, self.held_names, self.other_names = [], [], []
        self.words, self.codes, self.unknown = {}, {}, {}
        self.recent_statuses, self.recent_words = [None] * SLOTS, [None] * SLOTS
        self._lay_out(layout)
        for name, field, _ in wire:
            self._know(name.encode(), self._place(layout, field))
        for field, reading in {field: reading for _, field, reading in wire}.items():
            self._read_as(self._place(layout, field), reading)
        self.avro, self.head, self.failed, self.topic, self.schema = avro, head, failed, topic, schema
        self.error_of, self.word, self.unknown_name = error_of, word, unknown_name
        self.no_error, self.unknown_error = self._errors(*no_error), self._errors(*unknown_error)
        self.sources = tuple([self.symbols[self.message_time_source][source] for source in sources])
        self.overhead_bytes, self.header_bytes, self.max_record_bytes = overhead_bytes, header_bytes, max_record_bytes
        self.statuses = {spelled: self._status(*meaning) for spelled, meaning in statuses.items()}

    def _lay_out(self, list layout):
        """Take the fields of the event."""
        if len(layout) > MOST_FIELDS:
            raise ValueError(f"an event has {MOST_FIELDS} fields at most")
        kinds = {"text": TEXT, "boolean": BOOLEAN, "number": NUMBER, "symbol": SYMBOL}
        self.symbols, self.names_size, self.count = [], 0, len(layout)
        cdef bytes before
        for index, (name, kind, nullable, symbols) in enumerate(layout):
            self.kinds[index], self.nullable[index] = kinds[kind], nullable
            before = (b'{"' if index == 0 else b',"') + name.encode() + b'":'
            self.held_names.append(before)
            self.name_at[index], self.name_size[index] = PyBytes_AS_STRING(before), PyBytes_GET_SIZE(before)
            self.names_size += self.name_size[index]
            self.symbols.append({symbol: _Symbol(symbol, place) for place, symbol in enumerate(symbols)})
        self.event_id_at, self.message_id = self._place(layout, "event_id"), self._place(layout, "message_id")
        self.task_id, self.task_id_defaulted = self._place(layout, "task_id"), self._place(layout, "task_id_defaulted")
        self.recipient, self.user_id = self._place(layout, "recipient"), self._place(layout, "user_id")
        self.status, self.provider_status = self._place(layout, "status"), self._place(layout, "provider_status")
        self.status_rank, self.received_at = self._place(layout, "status_rank"), self._place(layout, "received_at")
        self.message_time = self._place(layout, "message_time")
        self.message_time_source = self._place(layout, "message_time_source")
        self.error_code, self.error_description = self._place(layout, "error_code"), self._place(layout, "error_description")
        self.error_category, self.error_retry = self._place(layout, "error_category"), self._place(layout, "error_retry")
        self.message_frame_type = self._place(layout, "message_frame_type")
        self.template_code, self.extras = self._place(layout, "template_code"), self._place(layout, "extras")

    def _place(self, list layout, str name):
        return [field[0] for field in layout].index(name)

    def _status(self, int rank, str name, tuple header, bytes normalized):
        cdef _Status status = _Status()
        status.name, status.rank, status.symbol, status.normalized = name, rank, self.symbols[self.status][name], normalized
        status.type_bytes = self.buffer.header(header)
        status.type = self.buffer.taken()
        return status

    def _errors(self, str category, str retry):
        return self.symbols[self.error_category][category], self.symbols[self.error_retry][retry]

    def _read_as(self, int field, str reading):
        if reading == "word":
            self.words_at[self.word_count] = field
            self.word_count += 1
        elif reading == "time":
            self.times_at[self.time_count] = field
            self.time_count += 1

    def _know(self, bytes name, int field):
        cdef Py_ssize_t size = len(name), index = 0
        if size > LONGEST_NAME or self.names == MOST_NAMES:
            raise ValueError(f"no room for the name {name!r}: {LONGEST_NAME} bytes and {MOST_NAMES} names at most")
        while index < OF_A_LENGTH and self.known_at[size][index] is not NULL:
            index += 1
        if index == OF_A_LENGTH:
            raise ValueError(f"no room for the name {name!r}: {OF_A_LENGTH} names of a length at most")
        self.held_names.append(name)
        self.known_at[size][index], self.known[size][index] = PyBytes_AS_STRING(name), self.names
        self.name_field[self.names] = field
        self.names += 1

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
                    status = self._status_in(&self.values[self.provider_status])
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
        # All absent: BY_NONE has all its bits set.
        memset(self.values, 0, self.count * sizeof(Value))
        memset(self.given, 0xFF, self.count * sizeof(int))
        self.decoded.size = self.others.size = 0
        self.decoded.reserve(text.end - text.at)
        if self.other_names:
            self.other_names.clear()
        if _space(text) != c'{':
            return False
        text.at += 1
        while True:
            if not _string(text, &name, self.decoded) or _space(text) != c':':
                return False  # an empty object as well, which has no MessageId
            text.at += 1
            following = _space(text)
            index = self._place_of(&name)
            if index < 0:
                if not self._other(text, &name):
                    return False
            else:
                value.at, value.size, value.special, value.escaped = NULL, 0, False, False
                if following == c'"':
                    if not _string(text, &value, self.decoded):
                        return False
                elif following == c'n':
                    if not _literal(text, b"null", 4):
                        return False
                elif not _integer(text, &value):
                    return False
                if not self._give(index, &value):
                    return False
            following = _space(text)
            text.at += 1
            if following == c'}':
                break
            if following != c',':
                return False
        if text.at != text.end:
            return False
        for index in range(self.count):
            if self.values[index].at is not NULL:
                _blank_is_absent(&self.values[index])
        if self.others.size:
            self.others.put(b"}", 1)
            self.values[self.extras].at, self.values[self.extras].size = self.others.data, self.others.size
            self.values[self.extras].escaped = True
        return True

    cdef inline int _place_of(self, Value* name) noexcept:
        """Which of the known names it is; -1 of another one."""
        cdef Py_ssize_t index
        if name.size > LONGEST_NAME:
            return -1
        for index in range(OF_A_LENGTH):
            if self.known_at[name.size][index] is NULL:
                return -1
            if memcmp(self.known_at[name.size][index], name.at, name.size) == 0:
                return self.known[name.size][index]
        return -1

    cdef inline bint _give(self, int name, Value* value) noexcept:
        """Its field the value of a name, the last of one name; False where two names say different things."""
        cdef int field = self.name_field[name]
        cdef Value* held = &self.values[field]
        if self.given[field] == BY_SEVERAL:
            return False
        if self.given[field] != BY_NONE and self.given[field] != name:
            if value.at is NULL:
                return True
            if held.at is not NULL:
                if held.size != value.size or memcmp(held.at, value.at, value.size) != 0:
                    return False
                self.given[field] = BY_SEVERAL
                return True
        self.given[field] = name
        held.at, held.size, held.special, held.escaped = value.at, value.size, value.special, value.escaped
        return True

    cdef bint _other(self, Text* text, Value* name) except -1:
        """A field that nobody knows, into extras; False where it needs the slow path."""
        cdef bytes key = name.at[:name.size], written = self.unknown.get(key)
        cdef const char* begin
        if written is None:
            written = self.unknown_name(key.decode()) or b""
            self._remember(self.unknown, name.size)
            self.unknown[key] = written
        if not written or len(self.other_names) == MOST_OTHERS or written in self.other_names:
            return False
        self.other_names.append(written)
        begin = text.at
        if not _any_value(text, MOST_LEVELS, self.decoded):
            return False
        self.others.put(b"," if self.others.size else b"{", 1)
        self.others.put_bytes(written)
        self.others.put(begin, text.at - begin)
        return True

    cdef int _remember(self, dict answers, Py_ssize_t size) except -1:
        """Before one more answer, to a text of this size."""
        if size > REMEMBERED_BYTES or len(answers) >= REMEMBERED_MOST:
            answers.clear()
        return 0

    cdef int _word(self, Value* value) except -1:
        """A word of one of the open lists, as it is published."""
        cdef _Word word = <_Word>self._recent(self.recent_words, value)
        if word is None:
            text = _text_of(value)
            word = self.words.get(text)
            if word is None:
                word = _Word()
                word.text = self.word(text) or ""
                self._remember(self.words, value.size)
                self.words[text] = word
                _take(word.text, &word.value)
            self._seen(self.recent_words, value, word)
        self.held.append(word)
        value.at, value.size = word.value.at, word.value.size
        value.special, value.escaped = word.value.special, word.value.escaped
        return 0

    cdef object _recent(self, list answers, Value* value):
        """The answer to a text that was seen before, found without a text of Python's; None where it has to be looked for."""
        cdef _Answer known = <_Answer>answers[_slot(value)]
        if known is None or PyBytes_GET_SIZE(known.text) != value.size:
            return None
        return known.answer if memcmp(PyBytes_AS_STRING(known.text), value.at, value.size) == 0 else None

    cdef int _seen(self, list answers, Value* value, answer) except -1:
        """In place of another one that has the same slot."""
        if value.size <= REMEMBERED_BYTES:
            answers[_slot(value)] = _Answer(value.at[:value.size], answer)
        return 0

    cdef _Status _status_in(self, Value* value):
        """What a spelling of a status means; None of one that is not documented."""
        if value.at is NULL:
            return None
        cdef _Status status = <_Status>self._recent(self.recent_statuses, value)
        if status is None:
            status = self.statuses.get(_text_of(value))
            if status is not None:
                self._seen(self.recent_statuses, value, status)
        return status

    cdef void _symbol(self, int index, _Symbol symbol) noexcept:
        """The encoder holds it."""
        self.values[index].number = symbol.place
        self.values[index].at, self.values[index].size = PyBytes_AS_STRING(symbol.text), PyBytes_GET_SIZE(symbol.text)

    cdef inline void _number(self, int index, int64_t number) noexcept:
        self.values[index].number = number
        self.values[index].absent = False

    cdef bint _event(self, _Status status) except -1:
        """What a report means, of the values as read; False where it needs the slow path."""
        cdef Value* values = self.values
        cdef int64_t time
        cdef int index, field
        cdef bint is_dated = values[self.message_time].at is not NULL
        self.held.clear()
        if values[self.message_id].at is NULL:
            return False
        for index in range(self.time_count):
            field = self.times_at[index]
            values[field].absent = values[field].at is NULL
            if not values[field].absent:
                time = _time_ms(&values[field])
                if time == SLOW_PATH:
                    return False
                self._number(field, time)
        for index in range(self.word_count):
            if values[self.words_at[index]].at is not NULL:
                self._word(&values[self.words_at[index]])
        self._number(self.task_id_defaulted, values[self.task_id].at is NULL)
        if values[self.task_id].at is NULL:
            values[self.task_id] = values[self.message_id]
        self._symbol(self.status, status.symbol)
        self._number(self.status_rank, status.rank)
        if not is_dated:
            self._number(self.message_time, self.received_at_ms)
        self._symbol(self.message_time_source, <_Symbol>self.sources[not is_dated])
        self._number(self.received_at, self.received_at_ms)
        self._error(status)
        if values[self.message_frame_type].at is NULL and values[self.template_code].at is not NULL:
            values[self.message_frame_type].at, values[self.message_frame_type].size = b"template", 8
        return True

    cdef int _error(self, _Status status) except -1:
        cdef Value* values = self.values
        cdef bint failed = status.name == self.failed
        cdef tuple meaning
        text = _text_of(&values[self.error_code])
        self.wire_code = b""
        if text is None and (values[self.error_description].at is NULL or not failed):
            meaning = self.unknown_error if failed else self.no_error
        else:
            known = self.codes.get((text, failed))
            if known is None:
                code, category, retry = self.error_of(text, _text_of(&values[self.error_description]), failed)
                known = code, self._errors(category, retry), b"" if text is None else (<str>text).strip().encode()
                if text is not None and (code is text or not failed):
                    self._remember(self.codes, values[self.error_code].size)
                    self.codes[(text, failed)] = known
            code, meaning, self.wire_code = known
            self.held.append(code)
            _take(code, &values[self.error_code])
        self._symbol(self.error_category, <_Symbol>meaning[0])
        self._symbol(self.error_retry, <_Symbol>meaning[1])
        return 0

    cdef object _record(self, _Status status, Py_ssize_t position):
        """The record of the event in hand; None where it could be too large."""
        cdef Value* message = &self.values[self.message_id]
        cdef _Buffer buffer = self.buffer
        self._digest(status.normalized)
        self.values[self.event_id_at].at, self.values[self.event_id_at].size = self.event_id, sizeof(self.event_id)
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
        cdef Value* message = &values[self.message_id]
        cdef Value* to = &values[self.recipient] if values[self.recipient].at is not NULL else &values[self.user_id]
        cdef _Buffer buffer = self.buffer
        buffer.big_endian(message.size, 4)
        buffer.put(message.at, message.size)
        buffer.big_endian(to.size, 4)
        buffer.put(to.at, to.size)
        buffer.big_endian(PyBytes_GET_SIZE(state), 4)
        buffer.put_bytes(state)
        buffer.big_endian(PyBytes_GET_SIZE(self.wire_code), 4)
        buffer.put_bytes(self.wire_code)
        cdef bytes digest = sha256(buffer.taken()).digest()
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(digest)
        cdef int index
        for index in range(16):
            self.event_id[2 * index], self.event_id[2 * index + 1] = HEX[at[index] >> 4], HEX[at[index] & 15]
        return 0

    cdef int _value(self) except -1:
        """The event in hand, behind what is in the buffer."""
        cdef Py_ssize_t most = PyBytes_GET_SIZE(self.head) + self.names_size + self.count * FIELD_BYTES + 1
        cdef int index
        for index in range(self.count):
            most += 6 * self.values[index].size if self.values[index].escaped else self.values[index].size
        self.buffer.reserve(most)
        cdef char* to = self.buffer.data + self.buffer.size
        to = _copied(to, PyBytes_AS_STRING(self.head), PyBytes_GET_SIZE(self.head))
        if self.avro:
            for index in range(self.count):
                to = self._avro_value(to, index)
        else:
            for index in range(self.count):
                to = _copied(to, self.name_at[index], self.name_size[index])
                to = self._json_value(to, index)
            to = _copied(to, b"}", 1)
        self.buffer.size = to - self.buffer.data
        return 0

    cdef inline char* _json_value(self, char* to, int index) noexcept:
        cdef Value* value = &self.values[index]
        cdef Kind kind = self.kinds[index]
        if kind == TEXT or kind == SYMBOL:
            if value.at is NULL:
                return _copied(to, b"null", 4)
            to[0] = c'"'
            to = _escaped(to + 1, value.at, value.size) if value.escaped else _copied(to + 1, value.at, value.size)
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


def string_end(bytes body, Py_ssize_t start) -> int:
    """As ``bridge.report.scan.string_end_python``."""
    return _string_end(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), start)


cdef Py_ssize_t _string_end(const char* body, Py_ssize_t size, Py_ssize_t start) noexcept:
    cdef Py_ssize_t at = start + 1
    while at < size:
        if body[at] == c'"':
            return at + 1
        at += 2 if body[at] == c'\\' else 1
    return -1


def value_end(bytes body, Py_ssize_t start) -> int:
    """As ``bridge.report.scan.value_end_python``."""
    cdef const char* text = PyBytes_AS_STRING(body)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body), at = start
    cdef _Buffer brackets = _Buffer()
    cdef char char
    while at < size:
        char = text[at]
        at += 1
        if char == c'"':
            at = _string_end(text, size, at - 1)
            if at < 0:
                return -1
        elif char == c'[' or char == c'{':
            brackets.reserve(1)
            brackets.byte(<uint8_t>char)
        elif char == c']' or char == c'}':
            if brackets.size == 0:
                return -1
            brackets.size -= 1
            if brackets.data[brackets.size] + 2 != char:
                return -1
            if brackets.size == 0:
                return at
    return -1


def strict_json(bytes text) -> bytes:
    """As ``bridge.report.lenient.strict_json_python``."""
    cdef const char* at = PyBytes_AS_STRING(text)
    cdef const char* end = at + PyBytes_GET_SIZE(text)
    cdef const char* behind
    cdef _Buffer buffer = _Buffer()
    cdef bint changed = False
    cdef char before = 0
    buffer.reserve(2 * PyBytes_GET_SIZE(text))
    cdef char* to = buffer.data
    while at < end:
        if at[0] == c'"':
            to[0] = at[0]
            to, at = to + 1, at + 1
            while at < end and at[0] != c'"':
                if at[0] == c'\n' or at[0] == c'\r':
                    to[0], to[1] = c'\\', c'n' if at[0] == c'\n' else c'r'
                    to, at, changed = to + 2, at + 1, True
                    continue
                if at[0] == c'\\' and end - at > 1:
                    to[0] = at[0]
                    to, at = to + 1, at + 1
                to[0] = at[0]
                to, at = to + 1, at + 1
            before = c'"'
            if at == end:
                break
        elif at[0] == c',' and before != c'[' and before != c'{' and before != c',' and before != c':':
            behind = at + 1
            while behind < end and _is_space(behind[0]):
                behind += 1
            if behind < end and (behind[0] == c']' or behind[0] == c'}'):
                at, changed = at + 1, True
                continue
        if not _is_space(at[0]):
            before = at[0]
        to[0] = at[0]
        to, at = to + 1, at + 1
    buffer.size = to - buffer.data
    return buffer.taken() if changed else text


cdef inline bint _is_space(char char) noexcept:
    return char == c' ' or char == c'\n' or char == c'\r' or char == c'\t'


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
