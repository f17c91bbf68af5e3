"""What the doctor found: each check's finding, and the report of all of them as text, TOML and JSON."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from bridge.operate.console import EXIT_DONE, EXIT_FAILED

EXIT_UNREACHABLE = 3
"""Kafka can't be reached, or refuses the login."""

_WIDTH = 96


class Outcome(StrEnum):
    """How a check ended."""

    GOOD = "good"
    """It works as configured."""
    ADVICE = "advice"
    """It works with what is advised, or without what replay would like; what to set is in the finding."""
    BROKEN = "broken"
    """It does not work, and no key of the bridge changes that."""
    NOT_TRIED = "not tried"
    """Something that it needs is missing."""


class Finding(msgspec.Struct, frozen=True):
    """The result of one check.

    Attributes:
        name: the check's name.
        outcome: how it ended.
        seen: what happened, in a sentence.
        why: what follows from it, and what to do; empty if nothing does.
        set: keys of the bridge to set, with their values.
        set_topics: keys of ``topics.file`` to set, by table.
        facts: the figures behind ``seen``.
    """

    name: str
    outcome: Outcome
    seen: str
    why: str = ""
    set: Mapping[str, Any] = {}
    set_topics: Mapping[str, Mapping[str, Any]] = {}
    facts: Mapping[str, Any] = {}


class Left(msgspec.Struct, frozen=True):
    """Something of the doctor's that is still on Kafka, or may be."""

    kind: str
    name: str
    why: str


class Report(msgspec.Struct, frozen=True):
    """All findings, the settings that differ from the configured ones, and what is left on Kafka.

    Attributes:
        findings: in the order of the checks.
        set: keys of the bridge to set, with their values.
        left: what could not be removed.
        reached: whether Kafka answered, and took the login.
    """

    findings: Sequence[Finding]
    set: Mapping[str, Any]
    left: Sequence[Left]
    reached: bool = True

    @property
    def exit_code(self) -> int:
        """0: all is good as configured; 1: something must be set, is broken or was not tried; 3: Kafka was not reached."""
        if not self.reached:
            return EXIT_UNREACHABLE
        bad = {Outcome.BROKEN, Outcome.NOT_TRIED}
        wrong = any(finding.outcome in bad or finding.set_topics for finding in self.findings)
        return EXIT_FAILED if wrong or self.set else EXIT_DONE

    @property
    def toml(self) -> str:
        """What to set, as the bridge's configuration takes it; empty if nothing is to be set."""
        sections: dict[str, list[str]] = {}
        whys = {key: finding.why for finding in self.findings for key in finding.set}
        for key, value in self.set.items():
            section, name = key.split(".", 1)
            lines = sections.setdefault(section, [])
            why = [f"# {line}" for line in _wrapped(whys[key])]
            lines += [] if why and why[-1] in lines else why  # once for several keys
            lines.append(f"{name} = {_toml(value)}")
        return "\n\n".join("\n".join((f"[{section}]", *lines)) for section, lines in sections.items())

    @property
    def topics_toml(self) -> str:
        """What to write into ``topics.file``; empty if nothing is."""
        tables: dict[str, dict[str, Any]] = {}
        for finding in self.findings:
            for table, values in finding.set_topics.items():
                tables.setdefault(table, {}).update(values)
        return "\n\n".join(
            "\n".join((f"[{table}]", *(f"{_toml_key(key)} = {_toml(value)}" for key, value in values.items())))
            for table, values in tables.items()
        )

    def json(self) -> dict[str, Any]:
        """The report as one object; docs/kafka.md describes it."""
        return {
            "exit_code": self.exit_code,
            "checks": [msgspec.to_builtins(finding) for finding in self.findings],
            "set": dict(self.set),
            "toml": self.toml,
            "topics_toml": self.topics_toml,
            "left": [msgspec.to_builtins(left) for left in self.left],
        }

    def text(self) -> list[str]:
        """The report as lines for people."""
        width = max((len(finding.name) for finding in self.findings), default=0)
        lines = []
        for finding in self.findings:
            first = f"{finding.outcome:<9}  {finding.name:<{width}}  "
            lines += _hanging(first, finding.seen)
            lines += _hanging(" " * len(first), finding.why) if finding.why else []
        lines += [""] if self.left else []
        for left in self.left:
            lines += _hanging("left on Kafka: ", f"{left.kind} {left.name}: {left.why}")
        if self.toml:
            lines += ["", "Set in the configuration (--config FILE):", "", self.toml]
        if self.topics_toml:
            lines += ["", "Set in topics.file:", "", self.topics_toml]
        return [*lines, "", self._summary()]

    def _summary(self) -> str:
        if not self.reached:
            return "Kafka was not reached, or refuses the login."
        if self.exit_code == EXIT_DONE:
            advised = any(finding.outcome is Outcome.ADVICE for finding in self.findings)
            return "Nothing has to be set. " + ("See the advice above." if advised else "All is good as configured.")
        wrong = [finding.name for finding in self.findings if finding.outcome is Outcome.BROKEN]
        missing = [finding.name for finding in self.findings if finding.outcome is Outcome.NOT_TRIED]
        parts = [f"broken: {', '.join(wrong)}"] if wrong else []
        parts += [f"not tried: {', '.join(missing)}"] if missing else []
        parts += ["something must be set, see above"] if self.set or self.topics_toml else []
        return f"{'; '.join(parts)}.".capitalize()


def _wrapped(text: str, width: int = _WIDTH) -> Iterable[str]:
    import textwrap  # noqa: PLC0415 - for this alone

    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _hanging(first: str, text: str) -> list[str]:
    """The text behind ``first``, wrapped, its further lines below its beginning."""
    lines = list(_wrapped(text)) or [""]
    return [first + lines[0], *(" " * len(first) + line for line in lines[1:])]


def _toml(value: Any) -> str:
    """A value in TOML, whose texts, numbers, booleans and arrays of texts are written as in JSON."""
    return msgspec.json.encode(value).decode()


def _toml_key(key: str) -> str:
    """A key in TOML: ``config."min.insync.replicas"`` for a topic's setting."""
    table, dot, setting = key.partition(".")
    return f"{table}.{_toml(setting)}" if dot else key
