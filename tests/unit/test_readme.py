"""What README and docs tell people to type exists: commands and their options, make's targets, keys, files, metrics."""

import argparse
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.contract import promised, series_of

from bridge import cli, config
from bridge.receive import answers, callbacks, limits

ROOT = Path(__file__).parents[2]
PROGRAM = "chatapp-bridge"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "avro/CONTRACT.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in DOCUMENTS}
KEYS = {value.key for value in config.load(environment={}).values}
SECTIONS = {key.partition(".")[0] for key in KEYS}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def blocks(text: str, *languages: str) -> Iterator[str]:
    """The fenced blocks of those languages, without their indentation; lines that go on are joined."""
    for indent, language, content in re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE):
        if language in languages:
            yield re.sub(rf"^{indent}", "", content, flags=re.MULTILINE).replace("\\\n", " ")


def inline(text: str) -> list[str]:
    """What stands between single backticks, outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE))


def typed(text: str) -> Iterator[list[str]]:
    """The command lines of a document's shell blocks, split, without comments."""
    for block in blocks(text, "sh", "console"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def everything_of(texts: dict[str, str], kind: Any) -> list[Any]:
    """Each thing that ``kind`` finds in a document, with the document's name, for parametrization."""
    return [pytest.param(found, id=f"{name}: {found}") for name, text in texts.items() for found in kind(text)]


def full_commands(text: str) -> Iterator[list[str]]:
    """The program's arguments in shell blocks: these must be complete."""
    yield from (words[1:] for words in typed(text) if words[0].endswith(PROGRAM))


def named_commands(text: str) -> Iterator[list[str]]:
    """The program's arguments in running text: these may leave out what is required."""
    yield from (shlex.split(code)[1:] for code in inline(text) if code.startswith(f"{PROGRAM} "))


def targets(text: str) -> Iterator[str]:
    """What make is asked for, in blocks and in running text."""
    lines = [*typed(text), *(code.split() for code in inline(text))]
    yield from (word for words in lines if words[0] == "make" for word in words[1:] if "=" not in word)


def keys(text: str) -> Iterator[str]:
    """Keys in running text, and those that blocks set in the environment or by ``--set``."""
    for code in inline(text):
        name = code.partition("=")[0]
        if re.fullmatch(r"[a-z]+\.(?!py$|toml$)[a-z_]+", name) and name.partition(".")[0] in SECTIONS:
            yield name
    for name in re.findall(r"BRIDGE_([A-Z]+__[A-Z_]+)", text):
        if name != "SECTION__KEY":
            yield name.lower().replace("__", ".")


def links(text: str) -> Iterator[str]:
    """The files that a document links to."""
    yield from (target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target)


@pytest.mark.parametrize("arguments", everything_of(TEXTS, full_commands))
def test_commands_in_blocks_are_accepted(arguments: list[str]) -> None:
    """The command line takes them as they stand, and their ``--set`` with them."""
    options = cli._parser(arguments).parse_args(arguments)
    config.load(environment={}, assignments=getattr(options, "set", []))


@pytest.mark.parametrize("arguments", everything_of(TEXTS, named_commands))
def test_commands_in_the_text_exist(arguments: list[str]) -> None:
    """Every word is a command, or an option, of what stands before it."""
    parser = cli._parser(arguments)
    for word in arguments:
        if word.startswith("-"):
            assert word.partition("=")[0] in parser._option_string_actions
            continue
        (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
        assert word in commands.choices
        parser = commands.choices[word]


@pytest.mark.parametrize("target", everything_of(TEXTS, targets))
def test_make_has_the_target(target: str) -> None:
    """The Makefile makes it."""
    assert target in TARGETS


@pytest.mark.parametrize("key", everything_of(TEXTS, keys))
def test_keys_exist(key: str) -> None:
    """The configuration has it."""
    assert key in KEYS


@pytest.mark.parametrize(("name", "text"), TEXTS.items())
def test_links_lead_somewhere(name: str, text: str) -> None:
    """Each is a file or folder of the checkout."""
    assert [target for target in links(text) if not (ROOT / name).parent.joinpath(target).exists()] == []


@pytest.mark.parametrize(("name", "text"), TEXTS.items())
def test_metrics_exist(name: str, text: str) -> None:
    """Each that a document names is in the list of docs/metrics.md, which is held against a real scrape."""
    assert series_of(" ".join(inline(text))) <= set(promised()), name


def test_the_readme_has_a_row_for_every_section() -> None:
    """In the order of bridge.toml."""
    table = TEXTS["README.md"].partition("| section |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(
        config.load(environment={}).settings.__struct_fields__
    )


def test_the_provider_page_has_a_row_for_every_answer() -> None:
    """Every status that the handler can answer with, and no other."""
    table = TEXTS["docs/provider.md"].partition("| answer |")[2].partition("\n\n")[0]
    described = {int(status) for status in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    code = "".join(map(inspect.getsource, (callbacks, limits, answers)))
    assert described == {int(status) for status in re.findall(r"(?:json_answer|Refusal)\((\d{3})", code)}


def test_something_was_found() -> None:
    """The patterns of this module still match: else they would hold nothing."""
    readme = TEXTS["README.md"]
    assert {"demo", "test"} <= set(targets(readme))
    assert len(list(full_commands(readme))) >= 3
    assert {"access.path_secrets", "spool.directory"} <= set(keys(readme))
    assert ["config"] in list(named_commands(readme))
    assert "docs/provider.md" in list(links(readme))


def test_names_of_tests_in_documents_exist() -> None:
    """What a promise names as its proof can be run; ``…`` stands for the rest of a name."""
    paths = [*(ROOT / "tests").rglob("*.py")]
    known = {path.stem for path in paths}.union(*(re.findall(r"def (test_\w+)", path.read_text()) for path in paths))
    mentioned = {
        (path.name, *match.groups())
        for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "avro/CONTRACT.md"]
        for match in re.finditer(r"`(?:[\w/]*/)?(test_\w+)(…?)", path.read_text())
    }
    assert len(mentioned) > 30
    lost = {
        (document, name)
        for document, name, rest in mentioned
        if name not in known and not (rest and any(each.startswith(name) for each in known))
    }
    assert lost == set()
