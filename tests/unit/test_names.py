"""One word for one thing: every word of the glossary is used, and no name that was replaced is left."""

import argparse
import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import cli, config

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs/glossary.md"

# What was called so before the first release, in code, logs and tests. ``docs/glossary.md`` has today's words.
REPLACED = frozenset(
    re.findall(
        r"\w+",
        """
        _append_batch _aside _beside _heard _on_hedge _Tally _told_by abandon_seconds Abandoned abandoned allow_open
        aside aside_reports aside_rows AsideRow Asker batch_refused Broken described_value drained_in_seconds folded
        force_source found_reports_at_start give_back hedge hedge_at hedge_ms hedge_seconds KafkaAway
        KafkaUnreachable lane_sick lanes_sick Overview plain_encoder PlainEncoder producer_abandoned
        producer_start_failed producer_started Producers producers_started producers_started_total Proof read_aside
        Readings Receipt reports_found reports_found_total reports_set_aside reports_set_aside_total Rotation
        secrets_usable set_aside show_numbers sick split_plain spool_aside_reports Stranger Tally told topic_mended
        topic_weak topics_weak Turn turn turn_sick ward
        """,
    )
)
# Words of ordinary English, which documents may use.
ORDINARY = frozenset(
    {
        "Abandoned", "abandoned", "aside", "Broken", "folded", "hedge", "Overview", "Producers", "Proof", "Rotation",
        "Stranger", "told", "Turn", "turn",
    }
)  # fmt: skip
REPLACED_IN_LANES = frozenset({"Group", "groups", "receipt", "receipts"})
REPLACED_FLAGS = frozenset(
    {"--aside", "--by", "--dev", "--force-source", "--list", "--margin", "--patience", "--show-numbers"}
)
REPLACED_ALERTS = frozenset({"Account", "KafkaAway", "LanesSick", "SetAside", "TopicsWeak"})
REPLACED_KEYS = frozenset({"hedge_ms", "abandon_seconds", "allow_open", "max_request_size"})


def tracked(*patterns: str) -> list[Path]:
    """The files of the checkout that git knows, or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def identifiers(source: str) -> Iterator[str]:
    """Every name that a module makes or uses, and its texts that could be one: log events, metrics, attributes."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Name():
                yield node.id
            case ast.Attribute():
                yield node.attr
            case ast.arg() | ast.keyword():
                yield node.arg or ""
            case ast.alias():
                yield from (node.name.rpartition(".")[2], node.asname or "")
            case ast.Constant(value=str() as text) if text.isidentifier():
                yield text


def flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Every option of a command and of those below it."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from flags(each)


@pytest.mark.parametrize(
    "path", [each for each in tracked("*.py") if each != Path(__file__)], ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_replaced_name_is_left(path: Path) -> None:
    """By the syntax tree, so that prose may say what it likes."""
    name = str(path.relative_to(ROOT))
    used = set(identifiers(path.read_text()))
    refused = REPLACED | REPLACED_KEYS
    assert used & (refused | REPLACED_IN_LANES if name.startswith("bridge/delivery/") else refused) == set()


def test_no_replaced_key_is_left() -> None:
    """Of the configuration."""
    known = set(config.documentation())
    assert {"delivery.spool_after_ms", "kafka.max_record_bytes"} <= known
    assert {key for key in known if key.partition(".")[2] in REPLACED_KEYS} == set()


def test_no_replaced_flag_is_left() -> None:
    """Of any command, those of the lab too."""
    known = {flag for command in ("", "demo", "simulate") for flag in flags(cli._parser([command]))}
    assert {"--allow-own-topic", "--settle-seconds", "--single-broker", "--ledger"} <= known
    assert known & REPLACED_FLAGS == set()


def test_no_replaced_metric_alert_or_value_is_left() -> None:
    """In what operators read and set: configuration, chart, documents, page."""
    words = "|".join(sorted(REPLACED - ORDINARY))
    alerts = "|".join(f"ChatappBridge{name}" for name in sorted(REPLACED_ALERTS))
    pattern = re.compile(rf"\b(?:chatapp_bridge_)?(?:{words})\b|\b(?:{alerts})\b|topicsJob\.dev\b")
    paths = tracked("config", "docs", "helm", "avro", "compose*", "*.md", "*.html", "Makefile", ".github")
    texts = {path: path.read_text() for path in paths if path.suffix != ".png"}
    assert len(texts) > 40
    found = {
        (str(path.relative_to(ROOT)), match[0]) for path, text in texts.items() for match in pattern.finditer(text)
    }
    assert found == set()


def terms() -> dict[str, str]:
    """The words of the glossary, with what they mean."""
    return dict(re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \|$", GLOSSARY.read_text(), re.MULTILINE))


def test_the_glossary_is_a_line_a_word_in_order() -> None:
    """Each row is read by the other test, and a reader finds it."""
    rows = [line for line in GLOSSARY.read_text().splitlines() if line.startswith("| **")]
    assert len(rows) == len(terms()) > 30
    names = [name.casefold() for name in terms()]
    assert names == sorted(names)


@pytest.fixture(scope="module")
def everything_else() -> str:
    """All that the project says outside of the glossary, in words parted by a blank: ``LaneEntry`` is ``lane entry``."""
    kinds = ("*.py", "*.pyx", "*.md", "*.toml", "*.yaml", "*.html")
    paths = [path for path in tracked(*kinds) if path not in {GLOSSARY, Path(__file__)}]
    return " ".join(_in_words(path.read_text()) for path in paths)


def _in_words(text: str) -> str:
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return re.sub(r"[\W_]+", " ", parted).casefold()


@pytest.mark.parametrize("term", terms())
def test_each_word_of_the_glossary_is_used(term: str, everything_else: str) -> None:
    """A word that nobody uses any more leaves it."""
    assert re.search(rf"\b{re.escape(_in_words(term).strip())}", everything_else)


DOCUMENTS = [*(ROOT / "docs").glob("*.md"), ROOT / "avro/CONTRACT.md", ROOT / "README.md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_each_document_links_to_the_glossary_once(path: Path) -> None:
    """Where a reader meets the first word that is not known."""
    assert path.read_text().count("glossary.md)") == (path != GLOSSARY)
