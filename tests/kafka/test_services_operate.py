"""What operators do on a service without transactions and producer ids, whose topics are made in its console."""

import asyncio
import re
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from support.kafka_frames import CREATE_TOPICS, INIT_PRODUCER_ID
from support.services import ApsaraMQ, LoginKafka
from support.topics import consume_all, create_topic, unique_name, until

RECORDS, RATE = 1_200, 400


class Operator:
    """Runs commands on the service, and looks at its topics past the proxy."""

    def __init__(self, bootstrap: str, settings: dict[str, Any], directory: Path) -> None:
        self.bootstrap, self.settings, self.directory = bootstrap, settings, directory

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        """Start a command; its output is in the file ``said``."""
        assignments = [part for key, value in self.settings.items() for part in ("--set", f"{key}={value}")]
        with (self.directory / "said").open("wb") as said:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bridge", *words, *assignments,
                cwd=self.directory, stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip

    async def run(self, *words: str) -> tuple[int, str]:
        """Run it to its end: exit code and output."""
        process = await self.start(*words)
        code = await asyncio.wait_for(process.wait(), 60)
        return code, (self.directory / "said").read_text()

    async def holds(self, topic: str, count: int) -> bool:
        """Whether the topic has so many records at least."""
        return len(await consume_all(self.bootstrap, topic)) >= count


async def test_replay_and_redrive_do_without_transactions(login_kafka: LoginKafka, tmp_path: Path) -> None:
    """Refused with the option's name, killed in the middle, gone on with: nothing is lost."""
    bootstrap = login_kafka.kafka.bootstrap_servers
    status, quarantine, target = [await create_topic(bootstrap, unique_name(name)) for name in ("s", "q", "target")]
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(RECORDS):
        producer.produce(status, b"{}", str(number).encode())
    assert await asyncio.to_thread(producer.flush, 30) == 0
    service = ApsaraMQ()
    async with service.before(login_kafka.ports) as proxy:
        names = {"topics.status": status, "topics.quarantine": quarantine, "topics.manage": "external"}
        login = {"kafka.bootstrap_servers": proxy.bootstrap_servers, **login_kafka.login(service)}
        operator = Operator(bootstrap, {**login, **names}, tmp_path)
        words: tuple[str, ...]
        for words in (("redrive",), ("replay", "--to-topic", target)):
            code, said = await operator.run(*words, "--execute")
            assert (code, "--at-least-once writes without them" in said) == (1, True), said
        assert service.done[INIT_PRODUCER_ID]

        words = ("replay", "--to-topic", target, "--at-least-once", "--execute")
        running = await operator.start(*words, "--rate", str(RATE))
        async with asyncio.timeout(60):
            await until(partial(operator.holds, target, RATE))
        running.kill()
        await running.wait()
        (run,) = re.findall(r"^run +(\S+)$", (tmp_path / "said").read_text(), re.MULTILINE)
        for words in (("replay", "--resume", run), ("redrive", "--at-least-once")):
            code, said = await operator.run(*words, "--execute")
            assert code == 0, said

        code, said = await operator.run("topics", "apply")
        assert (code, "nothing is created or changed here" in said) == (0, True), said
        operator.settings["topics.quarantine"] = unique_name("none")
        assert [(await operator.run("topics", each))[0] for each in ("check", "plan", "apply")] == [1, 1, 1]
        assert service.done[CREATE_TOPICS] == 0
    found = Counter(record.key for record in await consume_all(bootstrap, target))
    assert found.keys() == {str(number).encode() for number in range(RECORDS)}
