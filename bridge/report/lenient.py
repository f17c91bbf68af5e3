"""JSON that is not quite: trailing commas, and raw line breaks in strings. The provider's own samples have both.

And text that is JSON but can't be stored by most consumers: NUL, and halves of surrogate pairs, as a text cut within an
emoji has them.
"""

import re
from typing import Final

from bridge.compiled import COMPILED, module
from bridge.report import scan

# What stays as it is: all but commas, and strings without escapes and line breaks. Bounded, as in scan.py.
_match_plain: Final = re.compile(rb'(?:[^",]++|"[^"\\\n\r]*+"){1,256}').match
_match_closing: Final = re.compile(rb"[ \t\n\r]*+[\]}]").match
_WS: Final = b" \t\n\r"
# After which a comma ends no value.
_NO_VALUE: Final = (b"[", b"{", b",", b":")
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

    JSON stays as it is. A comma that follows no value is none that trails. A string without an end goes on to the text's.
    """
    pieces: list[bytes] = []
    position, before = 0, b""
    while position < len(text):
        if plain := _match_plain(text, position):
            pieces.append(plain[0])
            position, before = plain.end(), plain[0].rstrip(_WS)[-1:] or before
        elif text[position : position + 1] == b'"':
            end = scan.string_end_python(text, position)
            end = len(text) if end < 0 else end
            pieces.append(_without_line_breaks(text[position:end]))
            position, before = end, b'"'
        else:
            position += 1
            if before in _NO_VALUE or not _match_closing(text, position):
                pieces.append(b",")
                before = b","
    return b"".join(pieces)


def _without_line_breaks(string: bytes) -> bytes:
    if b"\n" not in string and b"\r" not in string:
        return string
    return _LINE_BREAKS.sub(lambda found: _ESCAPED_BREAKS.get(found[0], found[0]), string)


def replace_unstorable(json: bytes) -> bytes:
    """The JSON with U+FFFD in place of each escaped NUL and each half of a surrogate pair in its strings and names."""
    return _ESCAPES.sub(_storable, json) if b"\\u" in json else json


def _storable(escape: re.Match[bytes]) -> bytes:
    return _REPLACEMENT if escape[1] or escape[2] else escape[0]


strict_json = module.strict_json if COMPILED else strict_json_python
