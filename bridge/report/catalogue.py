"""What an error code means, so that alerting and billing need no table of their own.

The codes and their meanings are data: ``config/error_codes.toml``, which the package carries, and over it a file of the
operator's own (``events.error_codes``). A code that neither lists is UNKNOWN: new codes appear without notice.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from bridge.config import data_directory
from bridge.errors import ConfigurationError
from bridge.report.symbols import ErrorCategory, ErrorRetry


class ErrorMeaning(NamedTuple):
    """The category of an error code, and whether sending again can help."""

    category: ErrorCategory
    retry: ErrorRetry


NO_ERROR: Final = ErrorMeaning(ErrorCategory.NONE, ErrorRetry.NONE)
UNKNOWN_ERROR: Final = ErrorMeaning(ErrorCategory.UNKNOWN, ErrorRetry.UNKNOWN)

NO_ERROR_CODES: Final = frozenset({"", "0", "ok", "success", "00000", "delivered", "delivrd", "null"})
"""What stands in place of a code where there is none; trimmed, case folded."""

_KEY = "events.error_codes"
_TABLES = ("codes", "lists")
_ENTRY = ("category", "retry", "what")
_RANGE = re.compile(r"(0|[1-9][0-9]{0,17})-(0|[1-9][0-9]{0,17})")
_ALMOST_RANGE = re.compile(r"[0-9]{1,18}-[0-9]{1,18}")
_LARGEST_RANGE = 10_000
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LINE_END = "\n"
_LINE = re.compile(r"\(at line ([0-9]+), column [0-9]+\)$")


class Catalogue:
    """The error codes with their meanings. Codes are compared as text, without white space around them.

    Args:
        meanings: the meaning of each code, trimmed.
    """

    __slots__ = ("_meanings",)

    def __init__(self, meanings: Mapping[str, ErrorMeaning]) -> None:
        self._meanings = dict(meanings)

    @property
    def meanings(self) -> Mapping[str, ErrorMeaning]:
        """Every code with its meaning, each code of a range by itself."""
        return MappingProxyType(self._meanings)

    def meaning(self, error_code: str | None) -> ErrorMeaning:
        """The meaning of a code: NONE, NONE for None; UNKNOWN, UNKNOWN for a code that is not listed."""
        if error_code is None:
            return NO_ERROR
        return self._meanings.get(error_code.strip(), UNKNOWN_ERROR)

    def __contains__(self, code: str) -> bool:
        """Whether the code is listed, be it as UNKNOWN."""
        return code.strip() in self._meanings


@cache
def shipped_catalogue() -> Catalogue:
    """The catalogue that the package carries."""
    return Catalogue(_read(data_directory("config") / "error_codes.toml"))


def load_catalogue(own: Path | None) -> Catalogue:
    """The shipped catalogue, with a file of the operator's own over it.

    Args:
        own: the file that ``events.error_codes`` names, if any; each of its entries adds a code or replaces the shipped meaning.

    Raises:
        ConfigurationError: the file can't be used; names the key, the file, and every entry that is wrong.
    """
    shipped = shipped_catalogue()
    return shipped if own is None else Catalogue({**shipped.meanings, **_read(own)})


def _read(path: Path) -> dict[str, ErrorMeaning]:
    """The meanings in a file of this kind.

    Raises:
        ConfigurationError: it can't be used.
    """
    document = _document(path)
    problems = [f"{name}: there is no such table; write [codes]" for name in document if name not in _TABLES]
    meanings: dict[str, ErrorMeaning] = {}
    entries: dict[str, str] = {}
    codes = document.get("codes", {})
    if not isinstance(codes, dict):
        problems.append("codes: it is not a table; write [codes]")
        codes = {}
    for key, entry in codes.items():
        found = [*_code_problems(key), *_entry_problems(entry)]
        if not found:
            meaning = ErrorMeaning(ErrorCategory[entry["category"]], ErrorRetry[entry["retry"]])
            for code in _codes(key):
                if code in entries:
                    found.append(f"the code {code} is in the entry {_named(entries[code])} as well; keep one of them")
                    break
                entries[code], meanings[code] = key, meaning
        problems += [f"{_named(key)}: {problem}" for problem in found]
    if problems:
        lines = "\n".join(f"  {line}" for line in problems)
        raise ConfigurationError(f"{_KEY}: {path} can't be used:\n{lines}")
    return meanings


def _document(path: Path) -> dict[str, Any]:
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(
            f"{_KEY}: can't read {path}: {error.strerror}; mount it, or correct the key"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{_KEY}: {path} is not UTF-8 text: {error}; correct that byte") from error
    except tomllib.TOMLDecodeError as error:
        # Of a code that is there twice TOML's parser tells the place alone.
        place = _LINE.search(str(error))
        line = f", which is: {text.split(_LINE_END)[int(place[1]) - 1].strip()}" if place else ""
        raise ConfigurationError(
            f"{_KEY}: {path} is not TOML: {error}{line}; correct that line (a code may be there only once)"
        ) from error


def _code_problems(key: str) -> Iterator[str]:
    if not key.strip():
        yield "the code is blank; write the code as the provider sends it"
    elif key.strip().casefold() in NO_ERROR_CODES:
        yield "the code means that there is no error; leave it out"
    elif _ALMOST_RANGE.fullmatch(key.strip()) and not _RANGE.fullmatch(key.strip()):
        yield "the range has zeros before its numbers; write it without them"
    elif match := _RANGE.fullmatch(key.strip()):
        first, last = int(match[1]), int(match[2])
        if first > last:
            yield f"the range ends before it begins; write {last}-{first}"
        elif last - first >= _LARGEST_RANGE:
            yield f"the range has more than {_LARGEST_RANGE} codes; make it smaller"


def _entry_problems(entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield 'it is not a table; write { category = "…", retry = "…" }'
        return
    for name, value in entry.items():
        if name not in _ENTRY:
            remedy = "put a code with a dot in quotes" if isinstance(value, dict) else f"there are {', '.join(_ENTRY)}"
            yield f"there is no key {name}; {remedy}"
    yield from _symbol_problem(entry, "category", [each.value for each in ErrorCategory])
    yield from _symbol_problem(entry, "retry", [each.value for each in ErrorRetry])
    if not isinstance(entry.get("what", ""), str):
        yield "what is not text; write it in quotes, or leave it out"


def _symbol_problem(entry: Mapping[str, Any], name: str, symbols: list[str]) -> Iterator[str]:
    """Why this value of the entry can't be used; NONE is what an event without an error has."""
    usable = ", ".join(symbol for symbol in symbols if symbol != "NONE")
    if name not in entry:
        yield f"it has no {name}; give one of {usable}"
    elif entry[name] == "NONE":
        yield f"{name} is NONE, which is for reports without an error, not for a code; give one of {usable}"
    elif entry[name] not in symbols:
        yield f"{name} is {entry[name]!r}, which does not exist; give one of {usable}"


def _codes(key: str) -> Iterator[str]:
    """Every code of an entry: the code itself, or each of a range."""
    match = _RANGE.fullmatch(key.strip())
    yield from map(str, range(int(match[1]), int(match[2]) + 1)) if match else [key.strip()]


def _named(key: str) -> str:
    """The entry as it is written in the file."""
    return f"codes.{key}" if _BARE.fullmatch(key) else f'codes."{key}"'
