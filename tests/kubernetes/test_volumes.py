"""Pods that start on what others left on their volumes: gigabytes on a slow disk, a damaged file, another user's files."""

import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.backlog import body_of, callback, drop_pages, fill
from support.bridge_process import balance
from support.kubernetes import (
    LATE_SECONDS,
    QUARANTINE,
    STATUS,
    WAIT,
    Namespace,
    address_for_pods,
    eventually,
    provider,
    push,
)
from support.slow_disk import slow_disk, why_not

from bridge.delivery.layout import Layout
from bridge.lab.simulate.ledger import Entry, Ledger
from bridge.spool.format import DATABASE, PAGE_BYTES

pytestmark = pytest.mark.timeout(1800)
FILE_BYTES = 2 << 30
DISK_BYTES_PER_SECOND = 20_000_000


@pytest.fixture
def folder(namespace: Namespace, tmp_path: Path) -> Path:
    """What the first replica's volume will be."""
    if address_for_pods() is None:
        pytest.skip("no node is this machine, so no folder here can be a pod's volume")
    made = tmp_path / "volume"
    namespace.add_volume("spool-bridge-0", made)
    return made


def entries_of(path: Path) -> Ledger:
    """The provider's ledger so far; empty while there is none."""
    return Ledger.read(path) if path.exists() else Ledger()


def refused(ledger: Ledger) -> int:
    """How many attempts found nobody."""
    return sum(attempt.status is None for entry in ledger.entries.values() for attempt in entry.attempts)


def deliver(url: str, entry: Entry) -> None:
    """Push a callback as the provider does, and take down its answer."""
    answer = httpx.post(url, content=body_of(entry), timeout=LATE_SECONDS)
    assert answer.status_code == 200
    entry.promise(answer.status_code, time.monotonic())


def read_of_messages(url: str, entries: list[Entry]) -> list[Entry]:
    """Some of those callbacks' messages are read by now; the callbacks that said so."""
    ids = [entry.reports[0].message_id for entry in entries[:: len(entries) // 1000]]
    pushed = []
    for first in range(0, len(ids), 100):
        pushed.append(callback(1_000_000 + first, time.monotonic(), "Read", ids[first : first + 100]))
        deliver(url, pushed[-1])
    return pushed


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_a_start_with_gigabytes_on_a_slow_disk_loses_nothing_and_is_late_with_nothing(
    namespace: Namespace, folder: Path, tmp_path: Path, *, damaged: bool
) -> None:
    """The disk gives 20 MB/s to the pod. A provider pushes from before the pod is there, and pushes again where nobody listens.

    The pod is ready when it has read a small part of its file, and its probes need no allowance for the file's size. Each
    callback that is answered is answered 200, in the provider's time. Every report is published, of each message in its
    order, also if it is about a message in the file. If the file's first page is overwritten, the file is kept.
    """
    if reason := why_not(tmp_path):
        pytest.skip(reason)
    spool = {"max_bytes": 3 * FILE_BYTES, "min_free_bytes": 1 << 24}
    values = namespace.values(
        config={"spool": spool},
        spool={"size": "8Gi", "storageClassName": ""},
        probes={"startup": {"failureThreshold": 10}},
    )
    namespace.release({**values, "replicas": 0}, directory=tmp_path)
    old = fill(folder / "spool", FILE_BYTES, Layout([(STATUS, 12), (QUARANTINE, 3)]))
    if damaged:
        with (folder / "spool" / DATABASE).open("r+b") as file:
            file.write(b"\xff" * PAGE_BYTES)
        drop_pages(folder / "spool")

    path = tmp_path / "ledger"
    options = ["--callback-rate", "100", "--size", "1", "--duration", "30", "--retry-scale", "0.1"]
    with provider(namespace.url(), path, *options) as simulated, slow_disk(folder, DISK_BYTES_PER_SECOND) as disk:
        eventually(lambda: refused(entries_of(path)) > 20)
        namespace.kubectl("scale", "statefulset", "bridge", "--replicas=1")
        eventually(namespace.pods)
        disk.slow_down(namespace.pods()[0]["metadata"]["uid"])
        namespace.kubectl("rollout", "status", "statefulset", "bridge", f"--timeout={WAIT}")
        read_at_start = disk.bytes_read()
        eventually(lambda: entries_of(path).acknowledged_first > 20)
        newer = read_of_messages(namespace.url(), old)
        said, _ = simulated.communicate()
        read_meanwhile = disk.bytes_read()
    print(f"{read_at_start:,} bytes read at the start, {read_meanwhile:,} by the end\n{said}")  # noqa: T201 - the figures
    assert PAGE_BYTES < read_at_start < FILE_BYTES / 4
    assert read_meanwhile > read_at_start

    ledger = Ledger.read(path)
    assert ledger.summary().ok, said
    assert "timeout" not in ledger.summary().answers, said
    assert answers(namespace) == {"200"}
    eventually(lambda: is_checked_and_empty(namespace), seconds=600)
    assert {restarts for _, restarts in namespace.uids()} == {0}
    found = namespace.metrics()
    assert found["chatapp_bridge_reports_recovered_total"] == sum(len(entry.reports) for entry in old)
    assert found["chatapp_bridge_reports_dead_lettered_total"] == 0
    assert balance(found).taken == balance(found).accounted
    result = namespace.checked([*old, *ledger.entries.values(), *newer], ordered=True, seconds=180)
    assert result.ok, result.describe()
    kept = [each.stat().st_size for each in folder.glob(f"spool/damaged/*/{DATABASE}")]
    assert [size >= FILE_BYTES / 2 for size in kept] == [True] * damaged


def answers(space: Namespace) -> set[str]:
    """What the bridge itself has answered. While it starts, the service's address may lead to another server outside."""
    found = re.compile(r'chatapp_bridge_callbacks_total{answer="(.*)"}').fullmatch
    return {match[1] for name, value in space.metrics().items() if value and (match := found(name))}


def is_checked_and_empty(space: Namespace) -> bool:
    """Whether the spool has been checked, and all of it is published."""
    metrics = space.metrics()
    return metrics["chatapp_bridge_spool_checked"] == 1 and metrics["chatapp_bridge_spool_rows"] == 0


def test_another_user_takes_over_a_volume(namespace: Namespace, folder: Path, tmp_path: Path) -> None:
    """First another user of the same group, for whom the kubelet changes nothing, then another user of another group."""
    values = namespace.values(replicas=1, spool={"size": "8Gi", "storageClassName": ""})
    namespace.release(values, directory=tmp_path)
    namespace.stop_kafka()
    assert push(namespace.url(), "m-1") == 200
    of_the_group: dict[str, Any] = {"runAsUser": 20002, "fsGroupChangePolicy": "OnRootMismatch"}
    of_another = {"runAsUser": 30003, "runAsGroup": 30003, "fsGroup": 30003, "fsGroupChangePolicy": "Always"}
    for number, user in enumerate([of_the_group, of_another], 2):
        values["podSecurityContext"] = user
        namespace.release(values, "--no-hooks", directory=tmp_path)
        assert namespace.pods()[0]["spec"]["securityContext"]["runAsUser"] == user["runAsUser"]
        assert push(namespace.url(), f"m-{number}") == 200
        assert namespace.waiting() == {"bridge-0": number}
    owners = {each.stat().st_uid for each in (folder / "spool").iterdir()}
    assert len(owners) > 1, "the kubelet changes the group alone"

    namespace.start_kafka()
    namespace.release(values, directory=tmp_path)
    eventually(lambda: namespace.published() == {"m-1", "m-2", "m-3"})
