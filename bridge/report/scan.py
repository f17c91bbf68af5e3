"""Where the items of a body begin and end, also when a strict decoder refuses the body for one of them.

A strict decoder gives up the whole body for a bad escape, a missing colon or deep nesting in one item. This scanner
finds items by their brackets: it needs every bracket closed by its like, every string closed by a quote, and between the
items of the array a comma, of which the last may trail. What else stands in an item is left for whoever decodes that item.
Where that much is not whole (text cut off, text after the end, two items without a comma) nothing says for sure which
bytes belong to which item, and guessing could publish what was only part of a text: it has no items.

It works on bytes, without recursion, in linear time.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from bridge import compiled

# Only classes of bytes are repeated without a bound here, and possessively, so that no body makes the engine keep many
# places to come back to; what is longer than a bound goes on in the next turn of a loop.
_WS: Final = rb"[ \t\n\r]*+"
_match_space: Final = re.compile(_WS).match
_match_colon: Final = re.compile(_WS + rb":" + _WS).match
# What comes after a value; a comma that trails is passed over.
_match_mark: Final = re.compile(_WS + rb"(?:," + _WS + rb"(?=[\]}]))?([,\]}])").match
# What an array's item may be that is neither in brackets nor in quotes; and a member's value, which whoever decodes it judges.
_match_plain_item: Final = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?|true|false|null").match
_match_bare: Final = re.compile(rb"[-+.0-9A-Za-z_]++").match
_match_between_brackets: Final = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+"){1,256}').match
_match_in_string: Final = re.compile(rb'(?:[^"\\]++|\\.){1,256}', re.DOTALL).match

# In ASCII a closing bracket is its opening one and two, for both kinds.
_CLOSING: Final = 2


def split(body: bytes) -> list[bytes] | None:
    """The exact bytes of each item of an array; None if the body is no array, or not whole."""
    items: list[bytes] = []
    return items if _ends(body, _collect(body, items, None)) else None


def more_than(body: bytes, limit: int) -> bool:
    """Whether an array has more than ``limit`` items, as ``split`` finds them; no more than one beyond that is looked at."""
    if body.count(b",") < limit:  # most bodies, at the cost of a glance
        return False
    items: list[bytes] = []
    _collect(body, items, limit)
    return len(items) > limit


def _collect(body: bytes, items: list[bytes], limit: int | None) -> int:
    """Append each item of an array, up to one beyond ``limit``; the place behind the array, -1 if it was not whole till there."""
    start = _skip_space(body, 0)
    if body[start : start + 1] != b"[":
        return -1
    start = _skip_space(body, start + 1)
    if body[start : start + 1] == b"]":
        return start + 1
    while limit is None or len(items) <= limit:
        end = _end(body, start, _match_plain_item)
        mark = _match_mark(body, end) if end > 0 else None
        if mark is None or mark[1] == b"}":
            return -1
        items.append(body[start:end])
        start = _skip_space(body, mark.end())
        if mark[1] == b"]":
            return start
    return -1


def lone_object(body: bytes) -> bytes | None:
    """The exact bytes of an object that is all of the body but white space; None if it is not."""
    start = _skip_space(body, 0)
    if body[start : start + 1] != b"{":
        return None
    end = value_end(body, start)
    return body[start:end] if end > 0 and _ends(body, end) else None


def members(item: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each key, with its quotes, and value of an object that ``split`` or ``lone_object`` found, as far as that can be told."""
    position = 1
    while True:
        start = _skip_space(item, position)
        key_end = string_end(item, start) if item[start : start + 1] == b'"' else -1
        colon = _match_colon(item, key_end) if key_end > 0 else None
        if colon is None:
            return
        end = _end(item, colon.end(), _match_bare)
        if end < 0:
            end = len(item)
        yield item[start:key_end], item[colon.end() : end]
        mark = _match_mark(item, end)
        position = mark.end() if mark else len(item)


def deeper_than(item: bytes, limit: int) -> bool:
    """Whether brackets are nested deeper than ``limit`` anywhere in the item."""
    if item.count(b"[") + item.count(b"{") <= limit:
        return False
    depth = position = 0
    while position < len(item):
        position, token = _next_token(item, position)
        if position < 0:
            return False
        if token in {b"[", b"{"}:
            depth += 1
            if depth > limit:
                return True
        elif token:
            depth -= 1
    return False


def _next_token(body: bytes, position: int) -> tuple[int, bytes]:
    """Behind the next bracket, and which it is; nothing of one that is not there yet. -1 where a string has no end."""
    if between := _match_between_brackets(body, position):
        return between.end(), b""
    token = body[position : position + 1]
    return (string_end_python(body, position), b"") if token == b'"' else (position + 1, token)


def _skip_space(body: bytes, position: int) -> int:
    space = _match_space(body, position)
    return space.end() if space else position


def _ends(body: bytes, position: int) -> bool:
    return position >= 0 and _skip_space(body, position) == len(body)


def _end(body: bytes, start: int, match_other: Callable[[bytes, int], re.Match[bytes] | None]) -> int:
    """Where the value that starts at ``start`` ends; -1 if there is none. ``match_other``: of one without brackets or quotes."""
    first = body[start : start + 1]
    if first in (b"{", b"["):
        return value_end(body, start)
    if first == b'"':
        return string_end(body, start)
    other = match_other(body, start)
    return other.end() if other else -1


def string_end_python(body: bytes, start: int) -> int:
    """Where the string whose quote stands at ``start`` ends, behind its other quote; -1 if it has none."""
    position = start + 1
    while piece := _match_in_string(body, position):
        position = piece.end()
    return position + 1 if body[position : position + 1] == b'"' else -1


def value_end_python(body: bytes, start: int) -> int:
    """Where the object or array that starts at ``start`` ends; -1 if its brackets or quotes are not whole. Never 0."""
    open_brackets = bytearray()
    position = start
    while position < len(body):
        position, token = _next_token(body, position)
        if position < 0:
            return -1
        if token in {b"[", b"{"}:
            open_brackets += token
        elif token:
            if token[0] != open_brackets.pop() + _CLOSING:
                return -1
            if not open_brackets:
                return position
    return -1


string_end = compiled.module.string_end if compiled.COMPILED else string_end_python
value_end = compiled.module.value_end if compiled.COMPILED else value_end_python
"""The faster of the two, of each."""
