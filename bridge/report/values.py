"""What a value on the wire becomes: text, a word of an open list, a time, an error code."""

import re
from typing import Final, TypeAlias

from bridge.report.catalogue import NO_ERROR, NO_ERROR_CODES, UNKNOWN_ERROR, Catalogue, ErrorMeaning
from bridge.report.symbols import Status

Time: TypeAlias = int | float | str
"""As it may stand on the wire."""

# No more digits than a time can have, so that thousands of them are never made an int.
_digits: Final = re.compile(r"0*([0-9]{1,13})", re.ASCII).fullmatch
# Ten digits are seconds, thirteen milliseconds: both are 2001-09-09 to 2286-11-20. All else is absurd.
_MIN_SECONDS: Final = 10**9
_END_SECONDS: Final = 10**10
_MIN_MS: Final = 10**12
_END_MS: Final = 10**13

# ``131026:``, with a full-width colon as well, ``(#131026)``, ``131026 ``.
_code_in_description: Final = re.compile(r"\s*(?:\(#([0-9]+)\)|([0-9]+)(?:[:\uff1a\s]|$))").match
_MEANINGFUL: Final = frozenset({Status.FAILED, Status.UNKNOWN})


def present(text: str | None) -> str | None:
    """The text, or None where it is blank: that means absent."""
    return text if text and not text.isspace() else None


def word(text: str | None) -> str | None:
    """A word of one of the open lists: trimmed, case folded, - as _."""
    return text.strip().casefold().replace("-", "_") if text and not text.isspace() else None


def time_ms(value: Time) -> int | None:
    """A time of the provider's in milliseconds since the epoch; None if it is no time, or an absurd one.

    An integer, digits in a string, or an integral float; ten digits are seconds, thirteen milliseconds.
    """
    if isinstance(value, str):
        digits = _digits(value.strip())
        if digits is None:
            return None
        value = int(digits[1])
    elif isinstance(value, float):
        if not value.is_integer():
            return None
        value = int(value)
    if _MIN_MS <= value < _END_MS:
        return value
    return value * 1000 if _MIN_SECONDS <= value < _END_SECONDS else None


def optional_time_ms(value: Time | None) -> int | None:
    """The same of a time that may not have come."""
    return None if value is None else time_ms(value)


def error_of(
    wire_code: str | None, description: str | None, status: Status, catalogue: Catalogue
) -> tuple[str | None, ErrorMeaning]:
    """The code of a report, and what it means; None for no code.

    A FAILED without a code has the one of the catalogue that begins the description. Nothing but FAILED and UNKNOWN has a
    category: a message that was delivered did not fail, whatever code came with it.

    Args:
        wire_code: ErrorCode, else Error, as it came; None where neither did.
        description: ErrorDescription, None where it is blank.
        status: of the report.
        catalogue: of the codes.
    """
    code = None if wire_code is None or wire_code.strip().casefold() in NO_ERROR_CODES else wire_code
    if code is None and status is Status.FAILED and description is not None:
        code = _code_that_begins(description, catalogue)
    if status not in _MEANINGFUL:
        return code, NO_ERROR
    if code is None:
        return None, UNKNOWN_ERROR if status is Status.FAILED else NO_ERROR
    return code, catalogue.meaning(code)


def _code_that_begins(description: str, catalogue: Catalogue) -> str | None:
    found = _code_in_description(description)
    if found is None:
        return None
    code = found[1] or found[2]
    return code if code in catalogue else None
