"""The callback address's secrets by a mounted file, as Kubernetes mounts it: taken over while the bridge runs."""

import os
from functools import partial
from pathlib import Path

from support.bridge_process import SECRET, BridgeProcess
from support.callbacks import SUCCESS, body, eventually, report

NEW, NEWEST = "the-secret-that-replaces-it-1", "the-secret-that-comes-last-22"
NOWHERE = "127.0.0.1:1"


class Mount:
    """A volume of a Secret: the file is a link to ``..data/secrets``, and ``..data`` a link that is swapped."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0
        directory.mkdir()
        self.file = directory / "secrets"
        self.file.symlink_to("..data/secrets")

    def swap(self, content: bytes | None) -> None:
        """Another version takes its place at once; None: one without the file."""
        self._number += 1
        version = self._directory / f"..version-{self._number}"
        version.mkdir()
        if content is not None:
            (version / "secrets").write_bytes(content)
        link = self._directory / "..data_tmp"
        link.symlink_to(version.name)
        link.replace(self._directory / "..data")


async def statuses(bridge: BridgeProcess) -> list[int]:
    """What a callback to each of the three secrets is answered."""
    paths = [f"/callbacks/chatapp/status/{secret}" for secret in (SECRET, NEW, NEWEST)]
    answers = [await bridge.post(body(report("m")), path=path) for path in paths]
    assert all((answer.body == SUCCESS) == (answer.status == 200) for answer in answers)
    return [answer.status for answer in answers]


async def answered(bridge: BridgeProcess, *expected: int) -> bool:
    """Whether they are answered so."""
    return [*expected] == await statuses(bridge)


async def usable(bridge: BridgeProcess, expected: bool) -> bool:
    """What the metric says."""
    return (await bridge.metrics())['chatapp_bridge_secrets_loaded{source="path"}'] == expected


async def test_secrets_are_taken_over_and_what_can_t_be_used_changes_nothing(tmp_path: Path) -> None:
    """A new one beside the old, then the old one gone; an empty, a broken and a missing file are told and change nothing."""
    mount = Mount(tmp_path / "mounted")
    mount.swap(f"{SECRET}\n".encode())
    settings = {"access.path_secrets": None, "access.path_secrets_file": mount.file}
    async with BridgeProcess(NOWHERE, tmp_path, settings) as bridge:
        assert await answered(bridge, 200, 404, 404)
        mount.swap(f"# rotated\n{SECRET}\n\n{NEW}\n".encode())
        await eventually(partial(answered, bridge, 200, 200, 404))
        mount.swap(f"{NEW}\n".encode())
        await eventually(partial(answered, bridge, 404, 200, 404))

        for number, content in enumerate((b"", b"\xff\xfe\x00", None, f"{NEWEST}\nshort\n".encode()), 1):
            mount.swap(content)
            await eventually(partial(complaints, bridge, number))
            assert await usable(bridge, expected=False)
            assert await answered(bridge, 404, 200, 404)
        mount.swap(f"{NEWEST}\n".encode())
        await eventually(partial(answered, bridge, 404, 404, 200))
        assert await usable(bridge, expected=True)
        log = bridge.log()
    for words in (
        "there is no secret in",
        "it is no UTF-8 text",
        "No such file",
        "secret 2 of 2 (masked, 5 characters)",
    ):
        assert log.count(words) == 1, words
    for secret in (SECRET, NEW, NEWEST):
        assert secret not in log


async def test_a_mount_that_hangs_is_told_and_holds_up_nothing(tmp_path: Path) -> None:
    """The file becomes one that nobody ever writes to: what was read before is in force, and the end comes in time."""
    file = tmp_path / "secrets"
    file.write_text(f"{SECRET}\n")
    settings = {"access.path_secrets": None, "access.path_secrets_file": file}
    async with BridgeProcess(NOWHERE, tmp_path, settings) as bridge:
        file.unlink()
        os.mkfifo(file)
        await eventually(partial(complaints, bridge, 1))
        assert "takes longer than 5 s" in bridge.log()
        assert await usable(bridge, expected=False)
        assert await answered(bridge, 200, 404, 404)
        assert (await bridge.stop()).code == 0


async def complaints(bridge: BridgeProcess, count: int) -> bool:
    """Whether so many different ones were logged."""
    return bridge.log().count("secrets_unusable") == count
