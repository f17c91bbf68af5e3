"""The topics as they should be: ``topics.toml``, and over it a file of the deployment's own, ``topics.file``.

With ``topics.manage = "external"`` the owner of the topics decides how they are: then only what ``topics.file`` names is expected
of them, and what ``topics.toml`` declares is a recommendation.

Every name and value is looked at when it is read: what is declared decides how many lanes there are, how large a record may be,
and what the service warns of. The table of settings is Kafka 4.1's; a test holds it against a broker.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from bridge.config import Topics, data_directory
from bridge.errors import ConfigurationError

_Count = Annotated[int, Meta(ge=0)]
_Positive = Annotated[int, Meta(ge=1)]
_OrUnlimited = Annotated[int, Meta(ge=-1)]
_OrInherited = Annotated[int, Meta(ge=-2)]

SETTINGS: Final[dict[str, Any]] = {
    # Both topics keep several events of one key, and the quarantine has records without one.
    "cleanup.policy": Literal["delete"],
    "compression.gzip.level": _OrUnlimited,
    "compression.lz4.level": _Positive,
    "compression.type": Literal["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"],
    "compression.zstd.level": int,
    "delete.retention.ms": _Count,
    "file.delete.delay.ms": _Count,
    "flush.messages": _Positive,
    "flush.ms": _Count,
    "follower.replication.throttled.replicas": str,
    "index.interval.bytes": _Count,
    "leader.replication.throttled.replicas": str,
    "local.retention.bytes": _OrInherited,
    "local.retention.ms": _OrInherited,
    "max.compaction.lag.ms": _Positive,
    "max.message.bytes": _Positive,
    "message.timestamp.after.max.ms": _Count,
    "message.timestamp.before.max.ms": _Count,
    "message.timestamp.type": Literal["CreateTime", "LogAppendTime"],
    "min.cleanable.dirty.ratio": Annotated[float, Meta(ge=0, le=1)],
    "min.compaction.lag.ms": _Count,
    "min.insync.replicas": _Positive,
    "preallocate": bool,
    "remote.log.copy.disable": bool,
    "remote.log.delete.on.disable": bool,
    "remote.storage.enable": bool,
    "retention.bytes": _OrUnlimited,
    "retention.ms": _OrUnlimited,
    "segment.bytes": _Positive,
    "segment.index.bytes": _Positive,
    "segment.jitter.ms": _Count,
    "segment.ms": _Positive,
    "unclean.leader.election.enable": bool,
}
"""Kafka's topic settings that may be declared, and what each may hold."""

_TABLES = ("status", "quarantine")
_SHAPE: Final[dict[str, Any]] = {
    "partitions": Annotated[int, Meta(ge=1, le=1000)],
    "replication_factor": Annotated[int, Meta(ge=1, le=32767)],
}
# Where topics.toml leaves it to the cluster: the brokers' own default.
_MAX_MESSAGE_BYTES = 1_048_588


class DeclaredTopic(msgspec.Struct, frozen=True):
    """A table of ``topics.toml``, under the name it has in ``[topics]``; ``config`` in Kafka's own texts.

    Attributes:
        replication_factor: None where it is left to the cluster.
        expected: of a topic that others manage, the names of what has to be as declared; None: the bridge manages it.
    """

    name: str
    partitions: int
    replication_factor: int | None
    config: dict[str, str]
    expected: frozenset[str] | None = None

    @property
    def external(self) -> bool:
        """Whether others create and change it."""
        return self.expected is not None

    def expects(self, what: str) -> bool:
        """Whether a weaker ``partitions``, ``replication_factor`` or setting is an error, and not the owner's decision."""
        return self.expected is None or what in self.expected

    @property
    def max_message_bytes(self) -> int:
        """The largest batch, and so the largest record, that the topic takes."""
        return int(self.config.get("max.message.bytes", _MAX_MESSAGE_BYTES))

    def lowered_to(self, brokers: int) -> "DeclaredTopic":
        """As much of it as a cluster of ``brokers`` can give: for a developer's machine."""
        replication = min(self.replication_factor or brokers, brokers)
        isr = min(int(self.config.get("min.insync.replicas", "1")), max(1, replication - 1))
        config = {**self.config, "min.insync.replicas": str(isr)}
        lowered = None if self.replication_factor is None else replication
        return msgspec.structs.replace(self, replication_factor=lowered, config=config)


def declared_topics(topics: Topics) -> dict[str, DeclaredTopic]:
    """The declared topics by name, in the order of the lanes: status, quarantine.

    Raises:
        ConfigurationError: ``topics.file`` can't be used; names every key in it that is wrong.
    """
    default = data_directory("config") / "topics.toml"
    tables = tomllib.loads(default.read_text())
    own: dict[str, Any] = {}
    if topics.file:
        path = Path(topics.file)
        own = _read(path)
        problems = list(_problems(own))
        if not problems:
            tables = {name: _over(tables[name], own.get(name, {})) for name in _TABLES}
            problems = list(_contradictions(tables))
        if problems:
            lines = "\n".join(f"  {line}" for line in problems)
            raise ConfigurationError(f"topics.file: {path} can't be used:\n{lines}")
    names = dict(zip(_TABLES, (topics.status, topics.quarantine), strict=True))
    return {name: _topic(name, tables[key], _expected(topics, own.get(key, {}))) for key, name in names.items()}


def _expected(topics: Topics, own: Mapping[str, Any]) -> frozenset[str] | None:
    return frozenset({*own, *own.get("config", {})}) if topics.manage == "external" else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigurationError(
            f"topics.file: can't read {path}: {error.strerror}; mount it, or correct the key"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"topics.file: {path} is no TOML: {error}; correct that line") from error


def _problems(document: Mapping[str, Any]) -> Iterator[str]:
    """What is unknown or of a wrong kind, a line each."""
    for table, content in document.items():
        if table not in _TABLES or not isinstance(content, dict):
            yield f"{table}: there is no such table; there are {' and '.join(_TABLES)}, each with .config"
            continue
        config = content.get("config", {})
        for key, value in content.items():
            if key == "config":
                continue
            if (key, value) != ("replication_factor", ""):
                yield from _problem(f"{table}.{key}", key, value, _SHAPE)
        if not isinstance(config, dict):
            yield f"{table}.config: it is no table; write [{table}.config]"
            continue
        for option, value in config.items():
            if value != "":
                yield from _problem(f'{table}.config."{option}"', option, value, SETTINGS)


def _problem(where: str, key: str, value: Any, known: Mapping[str, Any]) -> Iterator[str]:
    if key not in known:
        near = difflib.get_close_matches(key, known, 3, 0.5) or [*known][:5]
        yield f"{where}: there is no such key; near it are {', '.join(near)}"
        return
    try:
        msgspec.convert(value, known[key])
    except msgspec.ValidationError as error:
        reason = str(error).removesuffix(" - at `$`").replace("Expected", "expected").replace("Invalid", "invalid")
        hint = (
            "; compaction would remove events of a key, of which there are several" if key == "cleanup.policy" else ""
        )
        yield f"{where} = {msgspec.json.encode(value).decode()}: {reason}{hint}"


def _over(table: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The deployment's own keys over the package's; an empty text leaves a setting, or the replication, to the cluster."""
    config = {**table["config"], **own.get("config", {})}
    return {**table, **own, "config": {key: value for key, value in config.items() if value != ""}}


def _contradictions(tables: Mapping[str, Any]) -> Iterator[str]:
    for name, table in tables.items():
        least, replicas = table["config"].get("min.insync.replicas", 1), table["replication_factor"]
        if replicas != "" and least > replicas:
            yield (
                f'{name}.config."min.insync.replicas" = {least}: more than {name}.replication_factor ({replicas}), so that '
                "nothing could be written; lower it, or raise the other"
            )


def _topic(name: str, table: Mapping[str, Any], expected: frozenset[str] | None) -> DeclaredTopic:
    config = {option: _text(value) for option, value in table["config"].items()}
    return DeclaredTopic(name, table["partitions"], table["replication_factor"] or None, config, expected)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
