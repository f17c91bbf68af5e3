"""Who may ask which port of a bridge that serves: health checks, networks, rates, former secrets, tokens, both families.

No Kafka is needed: what is pushed holds no report.
"""

import asyncio
import base64
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from support.apart import running_apart
from support.bridge_process import SECRET, BridgeProcess
from support.callbacks import SUCCESS, eventually
from support.raw_http import Answer, connection, exchange, read_answer, request

NOWHERE = "127.0.0.1:1"
CALLBACK = "/callbacks/chatapp/status"
WRONG = f"{CALLBACK}/{'x' * len(SECRET)}"
NEW = "the-secret-that-replaces-it-1"
TOKEN, OTHER = "a-token-of-the-admin-port-1", "another-token-for-operators"
READY, NOT_READY = b'{"status":"ready"}', b'{"status":"not ready"}'


def undated(answer: Answer | None) -> bytes:
    """The whole answer as bytes, but for its date."""
    assert answer is not None
    lines = answer.head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"date:")) + answer.body


def count(metrics: dict[str, float], name: str) -> float:
    """Of a counter."""
    return metrics[f"chatapp_bridge_{name}_total"]


async def counts(bridge: BridgeProcess, expected: float, name: str) -> bool:
    """Whether a counter says so."""
    return count(await bridge.metrics(), name) == expected


# --- health checks ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    """A bridge whom nearly nobody may push to: one network, and a low rate for wrong secrets."""
    settings = {
        "access.allowed_networks": "203.0.113.0/24",
        "access.trusted_proxies": "127.0.0.0/8",
        "limits.unauthenticated_per_second": 0.2,
        "limits.callbacks_per_second": 0.2,
    }
    process = BridgeProcess(NOWHERE, tmp_path_factory.mktemp("bridge"), settings)
    with running_apart(process):
        yield process


async def test_the_health_path_answers_whoever_asks_and_costs_nothing(strict: BridgeProcess) -> None:
    """GET and HEAD, on one connection, more often than any rate allows; no line in the log, nothing counted."""
    before, log = await strict.metrics(), strict.log()
    async with asyncio.timeout(20), connection(strict.port) as (reader, writer):
        for _ in range(100):
            writer.write(request("GET", "/healthz"))
            answer = await read_answer(reader)
            assert answer is not None
            assert (answer.status, answer.headers["content-type"], answer.body) == (200, "application/json", READY)
        writer.write(request("HEAD", "/healthz"))
        head = await read_answer(reader, head_only=True)
        assert head is not None
        assert (head.status, head.headers["content-length"]) == (200, str(len(READY)))
        writer.write(request("POST", "/healthz"))
        refused = await read_answer(reader)
        assert refused is not None
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    names = [name for name in before if name.startswith("chatapp_bridge_callbacks")]
    after = await strict.metrics()
    assert [before[name] for name in names] == [after[name] for name in names]
    assert strict.log() == log


async def test_a_bridge_that_is_not_ready_says_so_to_load_balancers(tmp_path: Path) -> None:
    """503, as /readyz; its path can be another, and then there is no other."""
    settings = {"spool.enabled": False, "server.health_path": "/"}
    async with BridgeProcess(NOWHERE, tmp_path, settings, wait="live") as bridge:
        answer = await exchange(bridge.port, request("GET", "/"))
        assert answer is not None
        assert (answer.status, answer.body) == (503, NOT_READY)
        other = await exchange(bridge.port, request("GET", "/healthz"))
        assert other is not None
        assert other.status == 404


async def test_without_a_health_path_there_is_none(tmp_path: Path) -> None:
    """Empty: whatever is asked is 404."""
    async with BridgeProcess(NOWHERE, tmp_path, {"server.health_path": ""}) as bridge:
        found = {undated(await exchange(bridge.port, request("GET", path))) for path in ("/healthz", "/", "/x")}
        assert len(found) == 1
        assert found.pop().startswith(b"HTTP/1.1 404 ")


# --- networks and rates -----------------------------------------------------------------------------------------------


def via(*addresses: str) -> list[tuple[str, str]]:
    """As a proxy sends it on."""
    return [("X-Forwarded-For", address) for address in addresses]


async def test_networks_and_rates_hold_on_every_path(strict: BridgeProcess) -> None:
    """Behind a proxy: each client by its own address; 404 to the byte alike, then 429 alike, wherever it asks."""

    async def asked(path: str, address: str) -> bytes:
        return undated(await exchange(strict.port, request("POST", path, b"[]", via(address))))

    paths = [f"{CALLBACK}/{SECRET}", WRONG, "/", f"{CALLBACK}//{'x' * 20}", CALLBACK, "/favicon.ico"]
    first = {await asked(path, f"198.51.100.{number}") for number, path in enumerate(paths)}
    assert len(first) == 1
    assert first.pop().startswith(b"HTTP/1.1 404 ")
    second = {await asked(path, f"198.51.100.{number}") for number, path in enumerate(paths)}
    assert {answer.partition(b"\r\n")[0] for answer in second} == {b"HTTP/1.1 429 Too Many Requests"}
    assert all(b"\r\nretry-after: " in answer and b"\r\nconnection: close\r\n" in answer for answer in second)
    metrics = await strict.metrics()
    assert count(metrics, "callbacks_refused_by_network") == 2
    assert count(metrics, "unauthenticated_rate_limited") == len(paths)
    assert strict.log().count("push_refused_by_network") == 2

    answers = [await strict.post(b"[]", headers=via("198.51.100.9, 203.0.113.7")) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert answers[1].json() == {"code": 429, "msg": "Too Many Requests"}
    assert count(await strict.metrics(), "callbacks_rate_limited") == 1


# --- former secrets ---------------------------------------------------------------------------------------------------


async def test_a_former_secret_is_told_apart_also_after_a_restart(tmp_path: Path) -> None:
    """Its 404 is any other's, to the byte; the counter and the log tell it apart; when it is back it is valid."""
    file = tmp_path / "secrets"
    file.write_text(f"{SECRET}\n")
    settings = {"access.path_secrets": None, "access.path_secrets_file": file}

    async def pushed(bridge: BridgeProcess, path: str) -> bytes:
        return undated(await exchange(bridge.port, request("POST", path, b"[]")))

    async def is_answered(bridge: BridgeProcess, status: int) -> bool:
        return (await bridge.post(b"[]")).status == status

    async with BridgeProcess(NOWHERE, tmp_path, settings) as bridge:
        assert (await bridge.post(b"[]")).body == SUCCESS
        await eventually(partial(exists, tmp_path / "spool" / "retired-secrets.json"))
        await bridge.stop()
        file.write_text(f"{NEW}\n")
        await bridge.start()
        assert await pushed(bridge, bridge.path) == await pushed(bridge, WRONG)
        assert await counts(bridge, 1, "callbacks_retired_secret")
        assert bridge.log().count("retired_secret_used") == 1

        file.write_text(f"{SECRET}\n{NEW}\n")
        await eventually(partial(is_answered, bridge, 200))
        file.write_text(f"{SECRET}\n")
        await eventually(partial(is_retired, bridge, NEW))
        log = bridge.log()
    assert SECRET not in log
    assert NEW not in log


async def exists(file: Path) -> bool:
    """Whether there is such a file."""
    return file.exists()  # noqa: ASYNC240 - a moment


async def is_retired(bridge: BridgeProcess, secret: str) -> bool:
    """Whether a push with it is counted as one with a former secret."""
    before = count(await bridge.metrics(), "callbacks_retired_secret")
    await bridge.post(b"[]", path=f"{CALLBACK}/{secret}")
    return count(await bridge.metrics(), "callbacks_retired_secret") == before + 1


# --- tokens -----------------------------------------------------------------------------------------------------------


async def status_command(*arguments: object) -> tuple[int | None, str]:
    """``chatapp-bridge status``: its exit code, and all that it said."""
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", "status", *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(command.communicate(), 60)
    return command.returncode, output.decode()


async def test_the_admin_port_asks_for_a_token(tmp_path: Path) -> None:
    """But for the probes; as a bearer, or as a browser's password; renewed while it runs, and never logged."""
    file = tmp_path / "token"
    file.write_text(f"# first\n{TOKEN}\n")

    async def asked(path: str, *headers: tuple[str, str], method: str = "GET") -> Answer:
        answer = await exchange(bridge.admin_port, request(method, path, headers=headers))
        assert answer is not None
        return answer

    async def takes(token: str, *, expected: bool) -> bool:
        return ((await asked("/metrics", ("Authorization", f"Bearer {token}"))).status == 200) == expected

    async with BridgeProcess(NOWHERE, tmp_path, {"server.admin_token_file": file}) as bridge:
        for path in ("/livez", "/readyz"):
            assert (await asked(path)).status == 200
        for path in ("/", "/metrics", "/status.json", "/nothing", "//livez", "/livez/", "/livez/../metrics"):
            refused = await asked(path)
            assert (path, refused.status, refused.json()) == (path, 401, {"code": 401, "msg": "Unauthorized"})
            for scheme in (b"Bearer", b"Basic"):
                assert b'\r\nwww-authenticate: %b realm="chatapp-bridge"\r\n' % scheme in refused.head
        password = base64.b64encode(f"operator:{TOKEN}".encode()).decode()
        for value in (f"Bearer {TOKEN}", f"Basic {password}"):
            assert (await asked("/", ("Authorization", value))).headers["content-type"].startswith("text/html")
            assert (await asked("/status.json", ("Authorization", value))).json()["safe"] is True
        assert (await asked("/metrics", ("Authorization", f"Bearer {TOKEN}x"))).status == 401
        assert (await asked("/metrics", ("Authorization", f"Bearer {TOKEN}"), method="POST")).status == 405

        configured = ["--set", f"server.admin_port={bridge.admin_port}"]
        assert await said_safe(*configured, "--set", f"server.admin_token_file={file}")
        assert await said_safe("--url", bridge.admin_url, "--token-file", file)
        for arguments in (configured, ["--url", bridge.admin_url]):
            code, output = await status_command(*arguments)
            assert code == 2
            assert "it asks for a token (401); name a file with a valid one: --token-file" in output

        file.write_text(f"{TOKEN}\n{OTHER}\n")
        await eventually(partial(takes, OTHER, expected=True))
        assert await takes(TOKEN, expected=True)
        file.write_text("short\n")
        await eventually(partial(complains, bridge))
        metrics = await asked("/metrics", ("Authorization", f"Bearer {OTHER}"))
        assert b'chatapp_bridge_secrets_loaded{source="admin"} 0.0' in metrics.body
        file.write_text(f"{OTHER}\n")
        await eventually(partial(takes, TOKEN, expected=False))
        assert await takes(OTHER, expected=True)
        log = bridge.log()
    assert "server.admin_token_file: token 1 of 1 (masked, 5 characters) can't be used" in log
    assert TOKEN not in log
    assert OTHER not in log


async def complains(bridge: BridgeProcess) -> bool:
    """Whether it logged that a file can't be used."""
    return "secrets_unusable" in bridge.log()


async def said_safe(*arguments: object) -> bool:
    """Whether the command says that all is well, and does not show the token."""
    code, output = await status_command(*arguments)
    return code == 0 and "safe" in output.lower() and TOKEN not in output


@pytest.mark.parametrize("content", [None, "", "short\n"])
async def test_a_token_that_can_t_be_used_stops_the_start(tmp_path: Path, content: str | None) -> None:
    """A file that is missing, empty or has a weak one: an admin port that is open by mistake is worse."""
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    async with BridgeProcess(NOWHERE, tmp_path, {"server.admin_token_file": file}, wait="no") as bridge:
        assert await bridge.ended() == 2
        assert "server.admin_token_file: " in bridge.log()


# --- addresses --------------------------------------------------------------------------------------------------------


async def reached(port: int, path: str, hosts: Sequence[str]) -> list[int]:
    """What a GET is answered by each of these addresses; 0: no connection."""
    found = []
    for host in hosts:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            found.append(0)
            continue
        with closing(writer):
            writer.write(request("GET", path))
            answer = await asyncio.wait_for(read_answer(reader), 20)
            found.append(answer.status if answer else -1)
    return found


LOOPBACK = ("127.0.0.1", "::1")


@pytest.mark.parametrize(("host", "expected"), [(None, [200, 200]), ("0.0.0.0", [200, 0])])  # noqa: S104
async def test_both_families_are_answered_unless_one_is_chosen(
    tmp_path: Path, host: str | None, expected: list[int]
) -> None:
    """By default, on both ports; the log says where."""
    try:
        with closing(socket.socket(socket.AF_INET6)) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    settings = {"server.host": host, "server.admin_host": host}
    async with BridgeProcess(NOWHERE, tmp_path, settings) as bridge:
        assert await reached(bridge.port, "/healthz", LOOPBACK) == expected
        assert await reached(bridge.admin_port, "/livez", LOOPBACK) == expected
        addresses = [f"0.0.0.0:{bridge.port}"] if host else [f"[::]:{bridge.port}", f"0.0.0.0:{bridge.port}"]
        assert '"addresses": ' + str(addresses).replace("'", '"') in bridge.log()
