"""Secrets that were valid: known for 30 days, over restarts, and by their hash alone."""

import asyncio
import json
import stat
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.receive import retired
from bridge.receive.access import Access
from bridge.receive.retired import FILE, KEPT_SECONDS, RetiredSecrets

OLD, NEW, NEVER = "the-old-secret-of-tests", "the-new-secret-of-tests", "what-never-was-a-secret"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as one element."""
    now = [1_764_000_000.0]
    monkeypatch.setattr("bridge.receive.retired.time.time", lambda: now[0])
    return now


def known(access: Access) -> list[bool]:
    """Which of the three were valid and are not."""
    return [access.admitted(f"/{secret}") for secret in (OLD, NEW, NEVER)]


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what a task does."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - a thread writes a file
            await asyncio.sleep(0.005)


@asynccontextmanager
async def living(file: Path | None, *secrets: str) -> Any:
    """A bridge's secrets, from its start to its end."""
    access = Access(secrets, RetiredSecrets(file))
    await access.retired.load()
    running = asyncio.create_task(access.retired.run())
    try:
        yield access
        await eventually(lambda: running.done() or not access.retired._changed.is_set())
    finally:
        running.cancel()
        await asyncio.wait([running])


def content(file: Path) -> Any:
    """What stands in the file."""
    return json.loads(file.read_bytes()) if file.exists() else None


def test_what_was_removed_is_retired_and_what_comes_back_is_not() -> None:
    """With a final slash or without; a part of it, or what never was valid, is none."""
    access = Access([OLD])
    assert known(access) == [False, False, False]
    access.replace([NEW])
    assert known(access) == [True, False, False]
    assert [access.admitted(rest) for rest in (f"/{OLD}/", OLD, f"/{OLD[:-1]}", f"/{OLD}x", "", "/", "/" + "x" * 9999)] == [
        True, True, False, False, False, False, False,
    ]  # fmt: skip
    access.replace([OLD, NEW])
    assert known(access) == [False, False, False]
    access.replace([])
    assert known(access) == [True, True, False]


def test_after_thirty_days_it_is_like_any_other(clock: list[float]) -> None:
    """To the second; and then it is forgotten."""
    access = Access([OLD])
    access.replace([NEW])
    clock[0] += KEPT_SECONDS - 1
    assert known(access) == [True, False, False]
    clock[0] += 1
    assert known(access) == [False, False, False]
    access.replace([NEW])
    assert access.retired._known.retired == {}


def test_a_clock_that_was_set_back_loses_nothing_and_makes_nothing_last_longer(clock: list[float]) -> None:
    """What was removed in what is now the future is still known, for 30 days from now."""
    access = Access([OLD])
    access.replace([NEW])
    clock[0] -= 3600
    access.replace([NEW])
    assert known(access) == [True, False, False]
    clock[0] += KEPT_SECONDS
    assert known(access) == [False, False, False]


async def test_a_restart_with_other_secrets_knows_the_former_ones(tmp_path: Path) -> None:
    """By a file of mode 0600 that holds none of them; also over a second restart, and a third that has it again."""
    file = tmp_path / FILE
    async with living(file, OLD) as access:
        await eventually(lambda: content(file) is not None)
        assert known(access) == [False, False, False]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    async with living(file, NEW) as access:
        assert known(access) == [True, False, False]
        await eventually(lambda: len(content(file)["retired"]) == 1)
    assert not {OLD, NEW} & set(file.read_text().split('"'))
    async with living(file, NEW) as access:
        assert known(access) == [True, False, False]
    async with living(file, OLD) as access:
        assert known(access) == [False, True, False]
        await eventually(lambda: len(content(file)["retired"]) == 1)
    async with living(file, OLD, NEW) as access:
        assert known(access) == [False, False, False]


async def test_a_change_while_it_runs_is_on_disk(tmp_path: Path) -> None:
    """So that the next start knows of it."""
    file = tmp_path / FILE
    async with living(file, OLD) as access:
        access.replace([NEW])
        await eventually(lambda: content(file) is not None and len(content(file)["retired"]) == 1)
    async with living(file, NEW) as access:
        assert known(access) == [True, False, False]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"salt":"","valid":[],"retired":{}}',
        b'{"salt":"ab","valid":["y"],"retired":{}}',
        f'{{"salt":"{"é" * 60}","valid":[],"retired":{{}}}}'.encode(),
        b"\xff",
    ],
)
async def test_a_file_that_can_t_be_read_is_said_and_replaced(tmp_path: Path, text: bytes) -> None:
    """It never stops a start."""
    file = tmp_path / FILE
    file.write_bytes(text)
    with capture_logs() as lines:
        async with living(file, OLD):
            await eventually(lambda: file.read_bytes() != text)
    assert [line["event"] for line in lines] == ["retired_secrets_file_unusable"]
    async with living(file, NEW) as access:
        assert known(access) == [True, False, False]


async def test_a_file_that_can_t_be_written_is_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory it works meanwhile."""
    monkeypatch.setattr(retired, "_RETRY_SECONDS", 0.01)
    directory = tmp_path / "spool"
    with capture_logs() as lines:
        async with living(directory / FILE, OLD) as access:
            access.replace([NEW])
            assert known(access) == [True, False, False]
            await eventually(lambda: bool(lines))
            directory.mkdir()
            await eventually((directory / FILE).exists)
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("retired_secrets_not_kept", "No such file or directory")
    ]


async def test_without_a_file_it_is_in_memory() -> None:
    """A bridge without a spool."""
    async with living(None, OLD) as access:
        access.replace([NEW])
        assert known(access) == [True, False, False]
        access.retired._changed.clear()
