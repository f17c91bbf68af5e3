"""The chart's life on a real Kubernetes: whatever is done to a release, what was answered 200 is on Kafka in the end."""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.apart import run_apart
from support.kubernetes import QUARANTINE, SECRET, STATUS, WAIT, Namespace, address_for_pods, eventually, new_namespace
from support.registry_gate import gate
from support.topics import consume_all

from bridge.lab.embedded import EmbeddedRegistry
from bridge.lab.simulate.check import Consumed, check
from bridge.lab.simulate.identity import raw_sha256
from bridge.lab.simulate.ledger import Ledger

# Each command that waits for the cluster may take WAIT.
pytestmark = pytest.mark.timeout(1800)
LATE_SECONDS = 3.0


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """One of the test's own, with Kafka."""
    with new_namespace() as made:
        yield made


def push(url: str, *message_ids: str) -> int:
    """Push a report for each, in one callback; the status of the answer."""
    reports = [{"MessageId": each, "Status": "Sent", "To": "8613800000000"} for each in message_ids]
    return httpx.post(url, json=reports, timeout=LATE_SECONDS, headers={"connection": "close"}).status_code


def published(space: Namespace) -> set[str]:
    """The message ids on the topic of events."""
    return {record.key.decode() for record in run_apart(consume_all(space.kafka, STATUS))}


def waiting(space: Namespace) -> dict[str, int]:
    """Reports in the spool of each bridge that runs."""
    names = [each["metadata"]["name"] for each in space.pods()]
    return {name: space.spool(name)["reports"] for name in names}


def uids(space: Namespace) -> set[tuple[str, int]]:
    """The bridges' pods, and how often each was started anew."""
    return {
        (pod["metadata"]["uid"], sum(each["restartCount"] for each in pod["status"]["containerStatuses"]))
        for pod in space.pods()
    }


def reaches(space: Namespace, pod: str, address: str, port: int) -> bool:
    """Whether a connection from within a pod of Kafka's image comes about."""
    command = f"timeout 5 bash -c '</dev/tcp/{address}/{port}' && echo reached"
    return "reached" in space.kubectl("exec", pod, "--", "sh", "-c", command, succeed=False)


def test_a_release_is_installed_changed_rolled_back_removed_and_installed_again(
    namespace: Namespace, tmp_path: Path
) -> None:
    """Under Pod Security's `restricted`. What Kafka has not taken when all is removed is on the volumes for the next one.

    What Kubernetes lets nobody change is refused with words, before anything is done. The notes' commands are real; a
    configuration that changes rolls the pods, and a rollback rolls them back; policies hold.
    """
    values = namespace.values(metrics={"dashboard": {"enabled": True}})
    assert "/callbacks/chatapp/status/SECRET" in namespace.release(values, directory=tmp_path)
    assert f"read back from {STATUS}" in namespace.helm("test", "bridge", "--logs")
    assert push(namespace.url(), "m-1") == 200

    bridge = namespace.pods()[0]["status"]["podIP"]
    assert reaches(namespace, "kafka", bridge, 8080)
    kubernetes = "import socket; socket.create_connection(('10.96.0.1', 443), 3)"
    assert "Error" in namespace.kubectl("exec", "bridge-0", "--", "python", "-c", kubernetes, succeed=False)

    before = uids(namespace)
    larger = {**values, "spool": {"size": "2Gi", "storageClassName": "other"}}
    said = namespace.release(larger, directory=tmp_path, succeed=False)
    assert "spool.size: 2Gi is not that of StatefulSet bridge, 1Gi, and Kubernetes never changes it" in said
    assert "spool.storageClassName: other is not that of StatefulSet bridge, null" in said
    namespace.release({**values, "networkPolicy": {**values["networkPolicy"], "adminFrom": [{"podSelector": {}}]},
                       "podDisruptionBudget": {"maxUnavailable": "50%"}}, directory=tmp_path)  # fmt: skip
    assert uids(namespace) == before
    changed = {**values, "config": {**values["config"], "log": {"level": "debug"}}}
    namespace.release(changed, directory=tmp_path)
    assert not uids(namespace) & before
    namespace.helm("rollback", "bridge", "1", "--wait", f"--timeout={WAIT}")
    assert "debug" not in namespace.get("configmap", "bridge")["data"]["bridge.toml"]

    namespace.stop_kafka()
    ids = {f"m-{number}" for number in range(2, 42)}
    assert {push(namespace.url(), each) for each in ids} == {200}
    assert sum(waiting(namespace).values()) == 40
    namespace.helm("uninstall", "bridge", "--wait")
    eventually(lambda: namespace.pods() == [])
    claims = namespace.kubectl("get", "pvc", "--output", "name").split()
    assert claims == ["persistentvolumeclaim/spool-bridge-0", "persistentvolumeclaim/spool-bridge-1"]

    namespace.start_kafka()
    namespace.release(values, directory=tmp_path)
    eventually(lambda: sum(waiting(namespace).values()) == 0)
    assert published(namespace) == ids


def test_a_rolling_upgrade_under_load_loses_nothing_and_answers_in_time(namespace: Namespace, tmp_path: Path) -> None:
    """A provider pushes at the Service meanwhile: each callback is answered 200 at once, within 3 s; none is lost."""
    values = namespace.values()
    namespace.release(values, directory=tmp_path)
    before = uids(namespace)
    path = tmp_path / "ledger"
    command = [
        sys.executable,
        "-m",
        "bridge",
        "simulate",
        "--url",
        namespace.url(),
        "--allow-remote",
        "--real-statuses",
    ]
    command += ["--rate", "200", "--duration", "75", "--retry-scale", "0.02", "--ledger", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as simulated:
        eventually(lambda: path.exists() and Ledger.read(path).acknowledged_first > 20)
        namespace.release({**values, "config": {**values["config"], "log": {"level": "debug"}}}, directory=tmp_path)
        rolled_during = simulated.poll() is None
        said, _ = simulated.communicate()
    assert rolled_during, "the provider had finished before the roll had; give it longer"
    assert not uids(namespace) & before

    ledger = Ledger.read(path)
    summary = ledger.summary()
    print(said)  # noqa: T201 - the figures are what people look for
    assert summary.ok, said
    assert summary.acknowledged_first >= 0.999 * summary.pushes, said
    assert summary.latency.p99_9_seconds < LATE_SECONDS, said
    eventually(lambda: sum(waiting(namespace).values()) == 0)
    status, quarantine = [run_apart(consume_all(namespace.kafka, topic)) for topic in (STATUS, QUARANTINE)]
    result = check(
        ledger.entries.values(),
        [Consumed(dict(r.headers)["ce_id"].decode(), r.key.decode(), r.partition, r.offset) for r in status],
        [raw_sha256(record.value) for record in quarantine],
        ordered=False,
    )
    assert result.ok, result.describe()


def test_what_a_replica_leaves_behind_is_drained_by_name(namespace: Namespace, tmp_path: Path) -> None:
    """Scaled down while Kafka is away: the volume keeps what it held; the notes name it, spool.drain publishes it."""
    values = namespace.values()
    namespace.release(values, directory=tmp_path)
    namespace.stop_kafka()
    ids = {f"m-{number}" for number in range(40)}
    assert {push(namespace.url(), each) for each in ids} == {200}
    left = waiting(namespace)["bridge-1"]
    assert left > 0

    said = namespace.release({**values, "replicas": 1}, "--no-hooks", directory=tmp_path)
    assert "spool-bridge-1" in said
    assert "spool.drain={1}" in said
    eventually(lambda: [pod["metadata"]["name"] for pod in namespace.pods()] == ["bridge-0"])

    namespace.start_kafka()
    spool = {**values["spool"], "drain": [1]}
    namespace.release({**values, "replicas": 1, "spool": spool}, directory=tmp_path)
    drain = "--selector=app.kubernetes.io/component=drain"
    namespace.kubectl("wait", "--for=condition=complete", "job", drain, f"--timeout={WAIT}")
    assert f"{left:,} of {left:,} published" in namespace.kubectl("logs", drain)
    eventually(lambda: published(namespace) == ids)


def test_a_secret_is_changed_without_a_roll(namespace: Namespace, tmp_path: Path) -> None:
    """Both secrets are good while one replaces the other, then only the new one; no pod is started anew."""
    namespace.release(namespace.values(replicas=1), directory=tmp_path)
    before = uids(namespace)
    old, new = namespace.url(), namespace.url().replace(SECRET, "another-secret-0123456789")
    assert (push(old, "m-1"), push(new, "m-2")) == (200, 404)

    def change(text: str) -> None:
        patch = {"data": {"path-secrets": base64.b64encode(text.encode()).decode()}}
        namespace.kubectl("patch", "secret", "bridge", "--patch", json.dumps(patch))

    change(f"{SECRET}\nanother-secret-0123456789\n")
    eventually(lambda: push(new, "m-3") == 200, seconds=180)
    assert push(old, "m-4") == 200
    change("another-secret-0123456789\n")
    eventually(lambda: push(old, "m-5") == 404, seconds=180)
    assert push(new, "m-6") == 200
    assert uids(namespace) == before


def test_without_the_spool_it_is_a_deployment(namespace: Namespace, tmp_path: Path) -> None:
    """It makes its topics before it starts, so that it becomes ready, passes its test, and owns no volume."""
    namespace.release(namespace.values(spool={"enabled": False}), directory=tmp_path)
    assert f"read back from {STATUS}" in namespace.helm("test", "bridge", "--logs")
    assert "No resources found" in namespace.kubectl("get", "pvc")


async def test_the_schema_is_registered_before_the_bridges_start(
    namespace: Namespace, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    """A real registry, reached from the pods: the Job registers, events carry the id; while it is away a release is refused."""
    address = address_for_pods()
    if address is None:
        pytest.skip("no node's address is this machine's, so no pod could reach the registry here")
    subject = f"{registry.url}/subjects/{STATUS}-value/versions/latest"
    assert (await asyncio.to_thread(httpx.get, subject)).status_code == 404
    async with gate(registry.url, host=address) as url:
        config = {"events": {"format": "avro"}, "registry": {"url": url}}
        values = namespace.values(replicas=1, config=config, schemaJob={"timeoutSeconds": 30})
        await asyncio.to_thread(namespace.release, values, directory=tmp_path)
        number = (await asyncio.to_thread(httpx.get, subject)).json()["id"]
        assert await asyncio.to_thread(push, namespace.url(), "m-1") == 200
        (record,) = await consume_all(namespace.kafka, STATUS)
        assert record.value[:5] == b"\0" + number.to_bytes(4)
    before = uids(namespace)
    changed = {**values, "config": {**values["config"], "log": {"level": "debug"}}}
    assert "schema" in await asyncio.to_thread(namespace.release, changed, directory=tmp_path, succeed=False)
    assert uids(namespace) == before
