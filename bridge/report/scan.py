"""Where the items of a body begin and end, also when a strict decoder refuses the body for one of them.

A strict decoder gives up the whole body for a lone surrogate, a bad escape or deep nesting in one item. This
scanner needs only the *structure* to be whole: every bracket, comma, colon and quote in its place, but for a comma
that trails: ``[1,]``. What is between two quotes, and a bare word such as NaN inside an item, is left for whoever
decodes that item. Where the structure itself is broken (text cut off, text after the end, a missing value) nothing says
for sure which bytes belong to which item, and guessing could publish what was only part of a text: it has no items.

It works on bytes, without recursion, in linear time.
"""

import re
from collections.abc import Iterator
from typing import Final

# Possessive only where a class of bytes is repeated: before 3.11.5 Python's re gets it wrong for groups (gh-106052).
_WS: Final = rb"[ \t\n\r]*+"
_STRING: Final = rb'"(?:[^"\\]++|\\.)*"'
_NUMBER: Final = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?"
# Inside an item; at the top of the array a bare word is no JSON at all.
_SCALAR: Final = rb"(?:" + _STRING + rb"|[-+.0-9A-Za-z_]++)"
# A comma before a closing bracket.
_TRAILING: Final = rb"(?:," + _WS + rb")?"
_MEMBER: Final = _STRING + _WS + rb":" + _WS + _SCALAR + _WS
_FLAT_OBJECT: Final = rb"\{" + _WS + rb"(?:" + _MEMBER + rb"(?:," + _WS + _MEMBER + rb")*" + _TRAILING + rb")?\}"
_FLAT_ARRAY: Final = (
    rb"\[" + _WS + rb"(?:" + _SCALAR + _WS + rb"(?:," + _WS + _SCALAR + _WS + rb")*" + _TRAILING + rb")?\]"
)

_match_space: Final = re.compile(_WS).match
_match_plain_item: Final = re.compile(_STRING + rb"|" + _NUMBER + rb"|true|false|null", re.DOTALL).match
# What the engine swallows in one go: a scalar, or a container of scalars only, as reports are.
_match_flat: Final = re.compile(
    _WS + rb"(?:" + _SCALAR + rb"|" + _FLAT_OBJECT + rb"|" + _FLAT_ARRAY + rb")", re.DOTALL
).match
_match_open: Final = re.compile(_WS + rb"([\[{])").match
_match_key: Final = re.compile(_WS + rb"(" + _STRING + rb")" + _WS + rb":" + _WS, re.DOTALL).match
# What comes after a value; a comma that trails is passed over.
_match_mark: Final = re.compile(_WS + rb"(?:," + _WS + rb"(?=[\]}]))?([,\]}])").match
_find_brackets: Final = re.compile(_STRING + rb"|([\[{])|[\]}]", re.DOTALL).finditer

_ARRAY: Final = ord("[")
_COMMA: Final = ord(",")
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
        end = _value_end(item, key.end())
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


def _value_end(body: bytes, start: int) -> int:
    """Where the value that starts at ``start`` ends; -1 if its structure is not whole. Never 0."""
    position = start
    open_brackets = bytearray()
    while True:
        if flat := _match_flat(body, position):
            position = flat.end()
        elif bracket := _match_open(body, position):
            open_brackets += bracket[1]
            position = _next_value(body, bracket.end(), open_brackets[-1])
            if position < 0:
                return -1
            continue
        else:
            return -1
        while open_brackets:
            mark = _match_mark(body, position)
            if mark is None:
                return -1
            position = mark.end()
            if mark[1][0] == _COMMA:
                position = _next_value(body, position, open_brackets[-1])
                break
            if mark[1][0] != open_brackets.pop() + _CLOSING:
                return -1
        else:
            return position
        if position < 0:
            return -1


def _next_value(body: bytes, position: int, container: int) -> int:
    """Where the container's next value is looked for: behind the key, in an object; -1 if there is no key."""
    if container == _ARRAY:
        return position
    key = _match_key(body, position)
    return key.end() if key else -1
