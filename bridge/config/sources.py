"""Reads every source of the configuration, and checks them together."""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import msgspec

from bridge.config.access import path_secrets
from bridge.config.contradictions import contradictions
from bridge.config.secrets import as_utf8, shown
from bridge.config.sections import Access, Settings
from bridge.errors import ConfigurationError

ENVIRONMENT_PREFIX = "BRIDGE_"
_PACKAGE = Path(__file__).parent.parent


class Value(msgspec.Struct, frozen=True):
    """One effective value and the source it came from, as ``chatapp-bridge config`` prints it."""

    key: str
    value: Any
    source: str

    @property
    def shown(self) -> str:
        """The value as TOML-like text, secrets masked."""
        return shown(self.key, self.value)

    def __repr__(self) -> str:
        return f"Value({self.key} = {self.shown}, from {self.source})"


class Loaded(msgspec.Struct, frozen=True):
    """The settings in force, and each value with its source."""

    settings: Settings
    values: list[Value]


def data_directory(name: str) -> Path:
    """The folder ``config`` or ``avro``: inside an installed wheel, else beside the package in a checkout."""
    packaged = _PACKAGE / "data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


def load(
    config_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    assignments: Sequence[str] = (),
    *,
    serving: bool = False,
) -> Loaded:
    """Read all sources and check them together.

    Args:
        config_file: a TOML file with any of the keys.
        environment: in place of ``os.environ``.
        assignments: texts ``section.key=value``.
        serving: look at the secrets as well, which only ``serve`` needs.

    Raises:
        ConfigurationError: names every key that is wrong, unknown or contradicts another, and what to do.
    """
    hints = _hints()
    raw: dict[str, tuple[Any, str, bool]] = {}
    problems: list[str] = []
    typed = [
        *_from_file(data_directory("config") / "bridge.toml", "default"),
        *(_from_file(config_file, str(config_file)) if config_file else ()),
    ]
    texts = [
        *_from_environment(os.environ if environment is None else environment),
        *_from_assignments(assignments),
    ]
    for sources, is_text in ((typed, False), (texts, True)):
        for key, value, source in sources:
            if key in hints:
                raw[key] = (value, source, is_text)
            else:
                problems.append(f"{key} (from {source}): there is no such key; {_nearest(key, hints)}")
    values: dict[str, Value] = {}
    for key, hint in hints.items():
        if key not in raw:
            problems.append(f"{key}: has no value, not even a default")
            continue
        value, source, is_text = raw[key]
        try:
            values[key] = Value(key, _convert(value, hint, is_text=is_text), source)
        except msgspec.ValidationError as error:
            problems.append(_refusal(key, value, source, str(error)))
    if len(values) == len(hints):
        problems.extend(contradictions(_assemble(values.values())))
    if serving:
        problems.extend(_access_problems(values))
    if problems:
        raise ConfigurationError("the configuration can't be used:\n" + "\n".join(f"  {line}" for line in problems))
    return Loaded(_assemble(values.values()), list(values.values()))


def documentation() -> dict[str, str]:
    """What ``bridge.toml`` says of each key: the comment above it, joined to one line."""
    documented: dict[str, str] = {}
    section, comment = "", []
    for line in (data_directory("config") / "bridge.toml").read_text().splitlines():
        if line.startswith("#"):
            comment.append(line.lstrip("# "))
        elif match := re.match(r"\[(\w+)\]", line):
            section, comment = match[1], []
        elif match := re.match(r"(\w+) *=", line):
            documented[f"{section}.{match[1]}"] = " ".join(comment)
            comment = []
        else:
            comment = []
    return documented


def _hints() -> dict[str, Any]:
    return {
        f"{section}.{key}": hint
        for section, struct in get_type_hints(Settings).items()
        for key, hint in get_type_hints(struct, include_extras=True).items()
    }


def _from_file(path: Path, source: str) -> Iterator[tuple[str, Any, str]]:
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"--config: can't read {path}: {error.strerror}; give a file that exists") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--config: {path} is no TOML: {error}; correct that line") from error
    for section, table in document.items():
        if not isinstance(table, dict):
            yield section, table, source
            continue
        for key, value in table.items():
            yield f"{section}.{key}", value, source


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name, value in sorted(environment.items()):
        section, separator, key = name.removeprefix(ENVIRONMENT_PREFIX).partition("__")
        if name.startswith(ENVIRONMENT_PREFIX) and separator:
            yield f"{section.lower()}.{key.lower()}", value, f"environment {name}"


def _from_assignments(assignments: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for number, assignment in enumerate(assignments, 1):
        key, separator, value = assignment.partition("=")
        if not separator:
            # What it is nobody knows; it could be a secret.
            raise ConfigurationError(f"--set: number {number} has no value; write --set section.key=value")
        yield key.strip(), value, "--set"


def _convert(value: Any, hint: Any, *, is_text: bool) -> Any:
    if is_text and as_utf8(value) != value:
        raise msgspec.ValidationError("no UTF-8 text")
    if is_text and get_origin(hint) is list:
        value = [part.strip() for part in value.split(",") if part.strip()]
    # Texts (environment, --set) become numbers and booleans; a TOML value must have its type already.
    return msgspec.convert(value, hint, strict=not is_text)


def _assemble(values: Iterable[Value]) -> Settings:
    sections: dict[str, dict[str, Any]] = {}
    for value in values:
        section, key = value.key.split(".", 1)
        sections.setdefault(section, {})[key] = value.value
    return msgspec.convert(sections, Settings)


def _access_problems(values: Mapping[str, Value]) -> Iterator[str]:
    """Why the secrets can't be used, where their keys at least have values of the right types."""
    names = [field.name for field in msgspec.structs.fields(Access)]
    if all(f"access.{name}" in values for name in names):
        try:
            path_secrets(Access(**{name: values[f"access.{name}"].value for name in names}))
        except ConfigurationError as error:
            yield str(error)


def _refusal(key: str, value: Any, source: str, reason: str) -> str:
    reason = reason.removesuffix(" - at `$`").replace("Expected", "expected").replace("Invalid", "invalid")
    return f"{key} = {shown(key, value)} (from {source}): {reason}. {documentation().get(key, '')}".rstrip()


def _nearest(key: str, hints: Mapping[str, Any]) -> str:
    section = key.split(".", 1)[0]
    siblings = [known for known in hints if known.startswith(f"{section}.")]
    if siblings:
        return "this section has " + ", ".join(known.split(".", 1)[1] for known in siblings)
    return "the sections are " + ", ".join(dict.fromkeys(known.split(".", 1)[0] for known in hints))
