"""The file of ids, and what is said where no registry could be asked."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge import config
from bridge.errors import ConfigurationError
from bridge.registry.ids import FILE, RegisteredIds
from bridge.schemas import EventSchema, known_schemas, written_schema

TOPIC = "status.v1"
SCHEMA = EventSchema('{"type": "string"}', b"\x01\x02\x03\x04\x05\x06\x07\x08")
URL, OTHER = "http://registry:8081/api", "http://other:8081"
HEX = SCHEMA.fingerprint.hex()


def settings(*assignments: str) -> config.Settings:
    """The bridge's own defaults, and these."""
    return config.load(environment={}, assignments=assignments).settings


def ids_of(file: Path | None, url: str = URL) -> RegisteredIds:
    """With an address that nobody asks, as nothing is started."""
    return RegisteredIds(settings(f"registry.url={url}").registry, [SCHEMA], file)


def kept(file: Path, ids: Any, url: str = URL) -> Path:
    """A file as the bridge writes it."""
    file.write_text(json.dumps({url: {f"{TOPIC}-value": ids}}))
    return file


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    """What is logged."""
    with capture_logs() as logs:
        yield logs


def test_an_id_that_was_kept_is_used_at_once(tmp_path: Path) -> None:
    """Confluent's frame: a zero byte, four bytes of the id; of this registry, this subject and this schema alone."""
    ids = ids_of(kept(tmp_path / FILE, {HEX: 0x01020304}))
    assert ids.prefix(TOPIC, SCHEMA.fingerprint) == b"\x00\x01\x02\x03\x04"
    assert ids.prefix("other", SCHEMA.fingerprint) is None
    assert ids.prefix(TOPIC, b"another.") is None
    assert (1, 2) == (ids.known, ids.missing)
    assert ids_of(tmp_path / FILE, OTHER).prefix(TOPIC, SCHEMA.fingerprint) is None


def test_every_address_of_a_registry_is_the_same_registry(tmp_path: Path) -> None:
    """An address added to the list loses no id; the first one's word counts."""
    file = kept(tmp_path / FILE, {HEX: 7})
    assert ids_of(file, f"{OTHER},{URL}").prefix(TOPIC, SCHEMA.fingerprint) == b"\x00\x00\x00\x00\x07"


def test_an_id_of_a_schema_that_this_bridge_never_had_serves_all_the_same(tmp_path: Path) -> None:
    """After a rollback: the newer bridge left its records, and the id for them."""
    ids = ids_of(kept(tmp_path / FILE, {b"another.".hex(): 9}))
    assert ids.prefix(TOPIC, b"another.") == b"\x00\x00\x00\x00\x09"


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"a": 1}', '{"a": {"b": {"zz": 1}}}', '{"a": {"b": {"00": -1}}}', '{"a": {"b": {"00": 4294967296}}}',
        '{"a": {"b": {"00": "1"}}}', "\ud800",
    ],
)  # fmt: skip
def test_a_damaged_file_is_as_none(text: str, tmp_path: Path, logs: list[Any]) -> None:
    """The registry has it all; nothing wrong is put before a value."""
    (tmp_path / FILE).write_bytes(text.encode(errors="surrogatepass"))
    ids = ids_of(tmp_path / FILE)
    assert ids.prefix(TOPIC, SCHEMA.fingerprint) is None
    assert [("schema_ids_file_unusable", str(tmp_path / FILE))] == [(each["event"], each["file"]) for each in logs]


def test_what_can_not_be_read_is_as_none(tmp_path: Path, logs: list[Any]) -> None:
    """It is said."""
    (tmp_path / FILE).mkdir()
    assert ids_of(tmp_path / FILE).prefix(TOPIC, SCHEMA.fingerprint) is None
    assert ["schema_ids_file_unusable"] == [each["event"] for each in logs]


def test_without_a_registry_what_needs_an_id_is_told_of_once_with_a_remedy(logs: list[Any]) -> None:
    """It waits: a former configuration had a registry."""
    ids = RegisteredIds(settings().registry, [SCHEMA], None)
    assert [None] * 3 == [ids.prefix(TOPIC, SCHEMA.fingerprint) for _ in range(3)]
    (said,) = logs
    assert ("schema_id_unknown", f"{TOPIC}-value", "registry.url is empty") == (
        said["event"],
        said["subject"],
        said["reason"],
    )
    assert (0, 1, True) == (ids.known, ids.missing, ids.ready)


def test_a_schema_of_no_release_is_told_of_once_with_a_remedy(logs: list[Any]) -> None:
    """Nothing can be asked of the registry, so it is said what helps."""
    ids = ids_of(None)
    assert [None] * 3 == [ids.prefix(TOPIC, b"another.") for _ in range(3)]
    (said,) = logs
    assert ("schema_id_unknown", "run the bridge that did, or one at least as new") == (said["event"], said["remedy"])


def test_what_is_required_decides_readiness(tmp_path: Path) -> None:
    """What the spool holds of older schemas doesn't."""
    ids = ids_of(kept(tmp_path / FILE, {HEX: 7}))
    ids.require(TOPIC, SCHEMA.fingerprint)
    ids.prefix(TOPIC, b"another.")
    assert ids.ready
    ids.require("other", SCHEMA.fingerprint)
    assert not ids.ready


@pytest.mark.parametrize(
    ("assignments", "ready"),
    [
        (["events.format=json", f"registry.url={URL}"], True),
        (["events.format=avro"], True),
        (["events.format=avro", f"registry.url={URL}"], False),
    ],
)
def test_an_id_is_required_where_values_will_lack_one(assignments: list[str], ready: bool, tmp_path: Path) -> None:
    """That of the schema that is written, on the topic of events; it may be kept beside the spool."""
    configured = settings(f"spool.directory={tmp_path}", "topics.status=status.v1", *assignments)
    assert RegisteredIds.of(configured).ready == ready
    kept(tmp_path / FILE, {written_schema().fingerprint.hex(): 1})
    assert RegisteredIds.of(configured).ready
    assert known_schemas()[0] == written_schema()


def test_what_the_client_can_not_use_stops_the_start(tmp_path: Path) -> None:
    """By name, before anything runs."""
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"registry\.ssl_cafile"):
        RegisteredIds.of(settings("registry.url=https://registry", f"registry.ssl_cafile={tmp_path / 'ca.pem'}"))
