"""``chatapp-bridge probe``: it finds its report on Kafka, or says how far it came; and it keeps the secret to itself."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka.protocol.metadata import MetadataRequest
from conftest import MakeTopic
from support.black_hole import BlackHole
from support.bridge_process import SECRET, BridgeProcess
from support.callbacks import make_topics
from support.topics import consume_all

from bridge import cli, config
from bridge.kafka.wire import Connection
from bridge.operate import probe as operate_probe

OTHER_SECRET = "another-secret-0123456789"  # noqa: S105 - opens nothing


def secrets_file(directory: Path, secret: str) -> Path:
    """A file as it is mounted."""
    file = directory / f"secrets-{secret}"
    file.write_text(f"# of the tests\n{secret}\n")
    return file


async def probe(directory: Path, *arguments: str, secret: str = SECRET, **settings: str) -> tuple[int, str]:
    """Run it as people do, the secret in a file; its exit code and everything it said."""
    file = secrets_file(directory, secret)
    values = {"access.path_secrets_file": str(file), **{key.replace("__", "."): text for key, text in settings.items()}}
    pairs = [part for key, text in values.items() for part in ("--set", f"{key}={text}")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", "probe", *pairs, *arguments, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert secret.encode() not in said
    return process.returncode or 0, said.decode()


async def test_it_reads_back_what_it_pushed(kafka_bootstrap: str, tmp_path: Path) -> None:
    """Its report, and no other, is on the topic: with the status that consumers ignore, where it says that it is."""
    topics = await make_topics(kafka_bootstrap)
    async with BridgeProcess(kafka_bootstrap, tmp_path, topics=topics) as bridge:
        base = f"http://127.0.0.1:{bridge.port}"
        for url in (base, f"{base}/callbacks/chatapp/status/", f"{base}/callbacks/chatapp/status/{SECRET}"):
            code, said = await probe(
                tmp_path, "--url", url, kafka__bootstrap_servers=kafka_bootstrap, topics__status=topics[0]
            )
            assert code == 0, said
            assert "answered 200" in said

    records = await consume_all(kafka_bootstrap, topics[0])
    assert len(records) == 3
    assert all(msgspec.json.decode(record.value)["provider_status"] == "BridgeTest" for record in records)
    last = max(records, key=lambda record: record.timestamp)
    assert f"read back from {topics[0]}, partition {last.partition}, offset {last.offset}," in said


async def test_it_says_how_far_it_came(kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path) -> None:
    """A secret that is not in force, nobody there, and a report that goes elsewhere: exit code 1 and which it was."""
    topics = await make_topics(kafka_bootstrap)
    elsewhere = await topic()
    async with BridgeProcess(kafka_bootstrap, tmp_path, topics=topics) as bridge:
        url = ("--url", f"http://127.0.0.1:{bridge.port}", "--timeout", "3")
        kafka = {"kafka__bootstrap_servers": kafka_bootstrap, "topics__status": topics[0]}
        wrong, lost, missing = await asyncio.gather(
            probe(tmp_path, *url, secret=OTHER_SECRET, **kafka),
            probe(tmp_path, *url, **{**kafka, "topics__status": elsewhere}),
            probe(tmp_path, *url, **{**kafka, "topics__status": "not-there"}),
        )
    nobody = await probe(tmp_path, *url, **kafka)

    assert [1, 1, 1, 1] == [wrong[0], lost[0], missing[0], nobody[0]], (wrong, lost, missing, nobody)
    assert "after 3 s the callback was not answered 200, but 404: the secret is not in force" in wrong[1]
    assert f"answered 200 and is not on {elsewhere}" in lost[1]
    assert "there is no topic not-there" in missing[1]
    assert "not answered 200, but ConnectError" in nobody[1]


async def test_the_first_address_of_kafkas_name_may_be_dead(
    kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For the questions about the topic and for reading it; nothing asks for all topics."""
    asked: list[MetadataRequest] = []
    ask = Connection.ask_aiokafka

    async def noted(connection: Connection, request: Any) -> Any:
        if isinstance(request, MetadataRequest):
            asked.append(request)
        return await ask(connection, request)

    monkeypatch.setattr(Connection, "ask_aiokafka", noted)
    topics = await make_topics(kafka_bootstrap)
    ports = {int(server.rpartition(":")[2]) for server in kafka_bootstrap.split(",")}
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo
    async with BridgeProcess(kafka_bootstrap, tmp_path, topics=topics) as bridge:
        with BlackHole() as hole:

            async def resolve_twice(host: Any, port: Any, **more: Any) -> Any:
                found = await resolve(host, port, **more)
                return [(*found[0][:4], hole), *found] if port in ports else found

            monkeypatch.setattr(loop, "getaddrinfo", resolve_twice)
            assignments = [f"kafka.bootstrap_servers={kafka_bootstrap}", f"topics.status={topics[0]}"]
            settings = config.load(environment={}, assignments=assignments).settings
            await operate_probe.run(settings, f"http://127.0.0.1:{bridge.port}/callbacks/chatapp/status/{SECRET}", 60)
    assert f"read back from {topics[0]}" in capsys.readouterr().out
    assert {tuple(request._topics) for request in asked} == {(topics[0],)}


async def test_no_kafka_to_read_from_is_told_apart(tmp_path: Path) -> None:
    """Nothing is pushed where it could not be read back."""
    code, said = await probe(tmp_path, "--url", "http://127.0.0.1:1", kafka__bootstrap_servers="127.0.0.1:1")
    assert (code, "no Kafka answers at 127.0.0.1:1" in said) == (1, True), said


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--url", "bridge.example/path"), "--url"),
        (("--url", "http://bridge.example:0"), "--url"),
        (("--url", "http://bridge.example?secret=x"), "--url"),
        (("--url", f"http://bridge.example/callbacks/chatapp/status/{OTHER_SECRET}"), "--url"),
        (("--timeout", "0"), "--timeout"),
        (("--ca-file", "/nowhere"), "--ca-file"),
    ],
)
def test_what_cannot_be_used_is_named(
    arguments: tuple[str, ...], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, before anything is sent."""
    settings = ["--set", f"access.path_secrets_file={secrets_file(tmp_path, SECRET)}"]
    assert cli.main(["probe", *settings, *arguments]) == 2
    assert f"chatapp-bridge: {word}: " in capsys.readouterr().err
