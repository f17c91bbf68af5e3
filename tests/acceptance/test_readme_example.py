"""The README's own example, typed as it stands there, against a real Kafka."""

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
from support.bridge_process import BridgeProcess
from support.topics import consume_all, unique_name

from bridge import config

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).parent / "chatapp-bridge"
SECTION = (ROOT / "README.md").read_text().partition("## Run it")[2].partition("\n## ")[0]
CURL_OPTIONS = {"--data"}


def lines() -> Iterator[list[str]]:
    """What the section tells people to type, a command each."""
    for block in re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL):
        yield from filter(None, (shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()))


def the(command: str) -> list[str]:
    """The arguments of the line that begins so, of which there is one."""
    (found,) = (words for words in lines() if " ".join(words).startswith(command))
    return found[len(command.split()) :]


def exported() -> dict[str, str]:
    """The variables that the section sets."""
    return dict(word.split("=", 1) for words in lines() if words[0] == "export" for word in words[1:])


def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> str:
    """Run to the end; what it printed."""
    own = os.environ | dict(environment or {})
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def curl(arguments: list[str]) -> str:
    """Run curl with these arguments, or where there is none do what it would; the answer's body."""
    program = shutil.which("curl")
    if program is not None:
        return await asyncio.to_thread(run, [program, "--silent", "--show-error", *arguments])
    options = {word for word in arguments if word.startswith("-")}
    assert options <= CURL_OPTIONS, "the stand-in for curl knows no more"
    body, url = arguments[arguments.index("--data") + 1], arguments[-1]
    form = {"content-type": "application/x-www-form-urlencoded"}
    async with httpx.AsyncClient() as client:
        return (await client.post(url, content=body, headers=form)).text


async def test_the_example_works(kafka_bootstrap: str, tmp_path: Path) -> None:
    """Topics made, the bridge started, a report pushed with curl: it is answered as shown, and on the topic."""
    status, quarantine = unique_name("status"), unique_name("quarantine")
    # Only what belongs to the reader's machine is another here: Kafka's address, and names and places that are shared.
    here = {
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": kafka_bootstrap,
        "BRIDGE_TOPICS__STATUS": status,
        "BRIDGE_TOPICS__QUARANTINE": quarantine,
        "BRIDGE_SPOOL__DIRECTORY": str(tmp_path / "spool"),
    }
    environment = exported() | here
    await asyncio.to_thread(run, [PROGRAM, "topics", *the(".venv/bin/chatapp-bridge topics")], environment)
    assert the(".venv/bin/chatapp-bridge serve") == []
    defaults = config.load(environment={}).settings.server
    own = dict.fromkeys(
        ("access.path_secrets", "access.allow_unauthenticated", "kafka.bootstrap_servers", "spool.directory")
    )
    async with BridgeProcess("", tmp_path, own, environment=environment, program=[PROGRAM]) as bridge:
        arguments = [part.replace(f"localhost:{defaults.port}", f"127.0.0.1:{bridge.port}") for part in the("curl")]
        assert arguments != the("curl"), "the example names the default port"
        answer = await curl(arguments)
        (shown,) = re.findall(r"```json\n(.*?)\n```", SECTION)
        assert answer == shown
        url = the(".venv/bin/chatapp-bridge simulate")[1]
        assert url == the("curl")[-1], "both examples push to the same address"
        (record,) = await consume_all(kafka_bootstrap, status)
        (report,) = json.loads(the("curl")[the("curl").index("--data") + 1])
        assert record.key.decode() == report["MessageId"]
        assert json.loads(record.value)["provider_status"] == report["Status"]
        for path in re.findall(r"`(/\w+z?)`", SECTION):
            port = f"http://127.0.0.1:{bridge.port}" if path == defaults.health_path else bridge.admin_url
            async with httpx.AsyncClient() as client:
                assert (await client.get(port + path)).status_code == httpx.codes.OK
        assert (await bridge.stop()).code == 0
