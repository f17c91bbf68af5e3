"""JSON that is not quite: trailing commas, and raw line breaks in strings. The provider's own samples have both.

And text that is JSON but can't be stored by most consumers: NUL, and halves of surrogate pairs, as a text cut within an
emoji has them.
"""

import re
from typing import Final

from bridge.compiled import COMPILED, module

# A string, with its raw line breaks; a comma before a closing bracket, if it follows a value.
_PIECES: Final = re.compile(rb'"(?:[^"\\]++|\\.)*(?:"|\\?\Z)|([\[{,:])?[ \t\n\r]*+,(?=[ \t\n\r]*+[\]}])', re.DOTALL)
_LINE_BREAKS: Final = re.compile(rb"\\.|[\n\r]", re.DOTALL)
_ESCAPED_BREAKS: Final = {b"\n": rb"\n", b"\r": rb"\r"}
# NUL; a pair of surrogates, which is a character; half of one; any other escape.
_ESCAPES: Final = re.compile(
    rb"\\(?:(u0000)|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_REPLACEMENT: Final = rb"\ufffd"


def strict_json_python(text: bytes) -> bytes:
    """The text without commas that trail, and with the raw line breaks in its strings escaped; itself where it has neither.

    JSON stays as it is. A comma that follows no value is none that trails.
    """
    return _PIECES.sub(_strict_piece, text)


def _strict_piece(piece: re.Match[bytes]) -> bytes:
    text = piece[0]
    if text[:1] == b'"':
        has_break = b"\n" in text or b"\r" in text
        return _LINE_BREAKS.sub(lambda found: _ESCAPED_BREAKS.get(found[0], found[0]), text) if has_break else text
    return text if piece[1] else text[:-1]


def replace_unstorable(json: bytes) -> bytes:
    """The JSON with U+FFFD in place of each escaped NUL and each half of a surrogate pair in its strings and names."""
    return _ESCAPES.sub(_storable, json) if b"\\u" in json else json


def _storable(escape: re.Match[bytes]) -> bytes:
    return _REPLACEMENT if escape[1] or escape[2] else escape[0]


strict_json = module.strict_json if COMPILED else strict_json_python
