"""Where the items of a body begin and end, also when a strict decoder refuses the body for one of them.

A strict decoder gives up the whole body for a bad escape, a missing colon or deep nesting in one item. This scanner
finds items by their brackets: it needs every bracket closed by its like, every string closed by a quote, and between the
items of the array a comma, of which the last may trail. What else stands in an item is left for whoever decodes that item.
Where that much is not whole (text cut off, text after the end, two items without a comma) nothing says for sure which
bytes belong to which item, and guessing could publish what was only part of a text: it has no items.

It works on bytes, without recursion, in linear time.
"""

import re
from collections.abc import Iterator
from typing import Final

# Possessive only where a class of bytes is repeated: before 3.11.5 Python's re gets it wrong for groups (gh-106052).
_WS: Final = rb"[ \t\n\r]*+"
_STRING: Final = rb'"(?:[^"\\]++|\\.)*"'
_NUMBER: Final = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?"
_SCALAR: Final = rb"(?:" + _STRING + rb"|[-+.0-9A-Za-z_]++)"
_BETWEEN_BRACKETS: Final = rb'(?:[^"\[\]{}]++|' + _STRING + rb")*"

_match_space: Final = re.compile(_WS).match
_match_plain_item: Final = re.compile(_STRING + rb"|" + _NUMBER + rb"|true|false|null", re.DOTALL).match
# What the engine takes in one go: an object without another bracket in it, as reports are.
_match_flat: Final = re.compile(rb"\{" + _BETWEEN_BRACKETS + rb"\}", re.DOTALL).match
_match_until_bracket: Final = re.compile(_BETWEEN_BRACKETS + rb'([\[\]{}"])', re.DOTALL).match
_match_scalar: Final = re.compile(_SCALAR, re.DOTALL).match
_match_key: Final = re.compile(_WS + rb"(" + _STRING + rb")" + _WS + rb":" + _WS, re.DOTALL).match
# What comes after a value; a comma that trails is passed over.
_match_mark: Final = re.compile(_WS + rb"(?:," + _WS + rb"(?=[\]}]))?([,\]}])").match
_find_brackets: Final = re.compile(_STRING + rb"|([\[{])|[\]}]", re.DOTALL).finditer

# In ASCII a closing bracket is its opening one and two, for both kinds.
_CLOSING: Final = 2


def split(body: bytes) -> list[bytes] | None:
    """The exact bytes of each item of an array; None if the body is no array, or not whole."""
    start = _skip_space(body, 0)
    if body[start : start + 1] != b"[":
        return None
    items: list[bytes] = []
    start = _skip_space(body, start + 1)
    if body[start : start + 1] == b"]":
        return items if _ends(body, start + 1) else None
    while True:
        end = _item_end(body, start)
        mark = _match_mark(body, end) if end > 0 else None
        if mark is None or mark[1] == b"}":
            return None
        items.append(body[start:end])
        start = _skip_space(body, mark.end())
        if mark[1] == b"]":
            return items if _ends(body, start) else None


def lone_object(body: bytes) -> bytes | None:
    """The exact bytes of an object that is all of the body but white space; None if it is not."""
    start = _skip_space(body, 0)
    if body[start : start + 1] != b"{":
        return None
    end = _value_end(body, start)
    return body[start:end] if end > 0 and _ends(body, end) else None


def members(item: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each key, with its quotes, and value of an object that ``split`` or ``lone_object`` found."""
    position = 1
    while key := _match_key(item, position):
        end = _member_end(item, key.end())
        yield key[1], item[key.end() : end]
        mark = _match_mark(item, end)
        position = mark.end() if mark else len(item)


def deeper_than(item: bytes, limit: int) -> bool:
    """Whether brackets are nested deeper than ``limit`` anywhere in the item."""
    if item.count(b"[") + item.count(b"{") <= limit:
        return False
    depth = 0
    for token in _find_brackets(item):
        if token[1]:
            depth += 1
            if depth > limit:
                return True
        elif token[0][0] != ord('"'):
            depth -= 1
    return False


def _skip_space(body: bytes, position: int) -> int:
    space = _match_space(body, position)
    return space.end() if space else position


def _ends(body: bytes, position: int) -> bool:
    return _skip_space(body, position) == len(body)


def _item_end(body: bytes, start: int) -> int:
    """Where the item of the outermost array that starts at ``start`` ends; -1 if there is none."""
    if body[start : start + 1] in (b"{", b"["):
        return _value_end(body, start)
    plain = _match_plain_item(body, start)
    return plain.end() if plain else -1


def _member_end(item: bytes, start: int) -> int:
    if item[start : start + 1] in (b"{", b"["):
        return _value_end(item, start)
    scalar = _match_scalar(item, start)
    return scalar.end() if scalar else len(item)


def _value_end(body: bytes, start: int) -> int:
    """Where the object or array that starts at ``start`` ends; -1 if its brackets or quotes are not whole. Never 0."""
    flat = _match_flat(body, start)
    if flat:
        return flat.end()
    open_brackets = bytearray()
    position = start
    while found := _match_until_bracket(body, position):
        bracket, position = found[1][0], found.end()
        if bracket in b"[{":
            open_brackets.append(bracket)
        elif bracket not in b"]}" or bracket != open_brackets.pop() + _CLOSING:
            return -1
        elif not open_brackets:
            return position
    return -1
