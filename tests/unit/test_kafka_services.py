"""``docs/kafka-services.md``: every block of TOML is taken as it is written there."""

import re
from pathlib import Path

import pytest

from bridge.config.sources import load
from bridge.topics.spec import declared_topics

TEXT = (Path(__file__).parents[2] / "docs/kafka-services.md").read_text()
MOUNTED = "/etc/chatapp-bridge"
SECTIONS = {
    section.partition("\n")[0]: re.findall(r"^```toml\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    for section in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
}


def is_of_topics(block: str) -> bool:
    """Whether a block is a file for ``topics.file``."""
    return block.startswith("# topics.toml")


BLOCKS = {
    f"{title} {number}": (block, [each for each in blocks if is_of_topics(each)])
    for title, blocks in SECTIONS.items()
    for number, block in enumerate(blocks)
    if not is_of_topics(block)
}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_bridge_takes_the_settings_of_a_service(tmp_path: Path, name: str) -> None:
    """Every key is known, nothing contradicts anything, and the topics can be declared so."""
    block, topics = BLOCKS[name]
    for path in re.findall(rf'"{MOUNTED}/([^"]+)"', block):
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(topics[0] if path == "topics.toml" else "secret")
    (tmp_path / "bridge.toml").write_text(block.replace(MOUNTED, str(tmp_path)))
    loaded = load(tmp_path / "bridge.toml", {}, ["access.allow_unauthenticated=true"], serving=True)
    assert loaded.settings.kafka.bootstrap_servers != ["localhost:9092"]
    declared = declared_topics(loaded.settings.topics)
    assert bool(loaded.settings.topics.file) is bool(topics)
    assert declared


def test_every_service_has_settings_and_says_what_is_weaker() -> None:
    """And each is in the table at the top."""
    services = list(SECTIONS)[2:-1]
    assert len(services) == 7
    for service in services:
        text = TEXT.partition(f"\n## {service}\n")[2].partition("\n## ")[0]
        assert "```toml" in text
        assert "**Weaker" in text, service
        anchor = service.lower().replace(" ", "-")
        assert f"](#{anchor})" in TEXT
