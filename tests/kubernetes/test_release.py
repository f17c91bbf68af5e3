"""The chart's life on a real Kubernetes: whatever is done to a release, what was answered 200 is on Kafka in the end."""

import asyncio
import base64
import json
import re
from pathlib import Path

import httpx
import pytest
from support.kubernetes import (
    LATE_SECONDS,
    SECRET,
    STATUS,
    WAIT,
    Namespace,
    address_for_pods,
    eventually,
    provider,
    push,
)
from support.registry_gate import gate
from support.topics import consume_all

from bridge.lab.embedded import EmbeddedRegistry
from bridge.lab.simulate.ledger import Ledger

# Each command that waits for the cluster may take WAIT.
pytestmark = pytest.mark.timeout(1800)


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

    before = namespace.uids()
    larger = {**values, "spool": {"size": "2Gi", "storageClassName": "other"}}
    said = namespace.release(larger, directory=tmp_path, succeed=False)
    assert "spool.size: 2Gi is not that of StatefulSet bridge, 1Gi, and Kubernetes never changes it" in said
    assert "spool.storageClassName: other is not that of StatefulSet bridge, null" in said
    namespace.release({**values, "networkPolicy": {**values["networkPolicy"], "adminFrom": [{"podSelector": {}}]},
                       "podDisruptionBudget": {"maxUnavailable": "50%"}}, directory=tmp_path)  # fmt: skip
    assert namespace.uids() == before
    changed = {**values, "config": {**values["config"], "log": {"level": "debug"}}}
    namespace.release(changed, directory=tmp_path)
    assert not namespace.uids() & before
    namespace.helm("rollback", "bridge", "1", "--wait", f"--timeout={WAIT}")
    assert "debug" not in namespace.get("configmap", "bridge")["data"]["bridge.toml"]

    namespace.stop_kafka()
    ids = {f"m-{number}" for number in range(2, 42)}
    assert {push(namespace.url(), each) for each in ids} == {200}
    assert sum(namespace.waiting().values()) == 40
    namespace.helm("uninstall", "bridge", "--wait")
    eventually(lambda: namespace.pods() == [])
    assert namespace.claims() == ["spool-bridge-0", "spool-bridge-1"]

    namespace.start_kafka()
    namespace.release(values, directory=tmp_path)
    eventually(lambda: sum(namespace.waiting().values()) == 0)
    assert namespace.published() >= ids


def test_a_rolling_upgrade_under_load_loses_nothing_and_answers_in_time(namespace: Namespace, tmp_path: Path) -> None:
    """A provider pushes at the Service meanwhile: each callback is answered 200 at once, within 3 s; none is lost."""
    values = namespace.values(preStopSeconds=10)
    namespace.release(values, directory=tmp_path)
    before = namespace.uids()
    path = tmp_path / "ledger"
    options = ["--rate", "200", "--duration", "75", "--retry-scale", "0.02"]
    with provider(namespace.url(), path, *options) as simulated:
        eventually(lambda: path.exists() and Ledger.read(path).acknowledged_first > 20)
        namespace.release({**values, "config": {**values["config"], "log": {"level": "debug"}}}, directory=tmp_path)
        rolled_during = simulated.poll() is None
        said, _ = simulated.communicate()
    assert rolled_during, "the provider had finished before the roll had; give it longer"
    assert not namespace.uids() & before

    ledger = Ledger.read(path)
    summary = ledger.summary()
    print(said)  # noqa: T201 - the figures are what people look for
    assert summary.ok, said
    assert summary.acknowledged_first >= 0.999 * summary.pushes, said
    assert summary.latency.p99_9_seconds < LATE_SECONDS, said
    eventually(lambda: sum(namespace.waiting().values()) == 0)
    result = namespace.checked(ledger.entries.values(), ordered=False)
    assert result.ok, result.describe()


def test_an_upgrade_and_a_rollback_while_kafka_is_unavailable_keep_what_waits(
    namespace: Namespace, tmp_path: Path
) -> None:
    """With the hooks nothing is rolled; with ``--no-hooks`` the pods are, with their reports, there and back."""
    values = namespace.values(replicas=1, topicsJob={"singleBroker": True, "timeoutSeconds": 10})
    namespace.release(values, directory=tmp_path)
    before = namespace.uids()
    namespace.stop_kafka()
    ids = [f"m-{number}" for number in range(30)]
    assert {push(namespace.url(), each) for each in ids[:10]} == {200}

    changed = {**values, "config": {**values["config"], "log": {"level": "debug"}}}
    assert "bridge-topics" in namespace.release(changed, directory=tmp_path, succeed=False)
    assert namespace.uids() == before
    namespace.release(changed, "--no-hooks", directory=tmp_path)
    assert not namespace.uids() & before
    assert namespace.waiting() == {"bridge-0": 10}
    assert {push(namespace.url(), each) for each in ids[10:20]} == {200}
    namespace.helm("rollback", "bridge", "1", "--no-hooks", "--wait", f"--timeout={WAIT}")
    assert "debug" not in namespace.get("configmap", "bridge")["data"]["bridge.toml"]
    assert namespace.waiting() == {"bridge-0": 20}
    assert {push(namespace.url(), each) for each in ids[20:]} == {200}

    namespace.start_kafka()
    namespace.release(values, directory=tmp_path)
    eventually(lambda: namespace.published() == set(ids))


def test_what_a_replica_leaves_behind_is_drained_by_name(namespace: Namespace, tmp_path: Path) -> None:
    """Scaled down while Kafka is unavailable: the volume keeps its reports; the notes name it, spool.drain publishes them.

    While Kafka is still unavailable the Job fails, its log names the error, and the volume keeps everything.
    """
    values = namespace.values()
    namespace.release(values, directory=tmp_path)
    namespace.stop_kafka()
    ids = {f"m-{number}" for number in range(40)}
    assert {push(namespace.url(), each) for each in ids} == {200}
    left = namespace.waiting()["bridge-1"]
    assert left > 0

    said = namespace.release({**values, "replicas": 1}, "--no-hooks", directory=tmp_path)
    assert "spool-bridge-1" in said
    assert "spool.drain={1}" in said
    eventually(lambda: [pod["metadata"]["name"] for pod in namespace.pods()] == ["bridge-0"])

    drain = "--selector=app.kubernetes.io/component=drain"
    draining = {**values, "replicas": 1, "spool": {**values["spool"], "drain": [1]}, "drainJob": {"timeoutSeconds": 5}}
    namespace.release(draining, "--no-hooks", directory=tmp_path)
    namespace.kubectl("patch", "job", namespace.kubectl("get", "job", drain, "--output", "jsonpath={.items[0].metadata.name}"),
                      "--patch", '{"spec": {"backoffLimit": 0}}')  # fmt: skip
    namespace.kubectl("wait", "--for=condition=failed", "job", drain, f"--timeout={WAIT}")
    kept = rf"not done in 5 s: {left} reports are left, and stay there; last error of Kafka: .*{namespace.kafka}"
    assert re.search(kept, namespace.kubectl("logs", drain))
    namespace.release({**values, "replicas": 1}, "--no-hooks", directory=tmp_path)

    namespace.start_kafka()
    namespace.release(draining, directory=tmp_path)
    namespace.kubectl("wait", "--for=condition=complete", "job", drain, f"--timeout={WAIT}")
    assert f"{left:,} of {left:,} published" in namespace.kubectl("logs", drain)
    eventually(lambda: namespace.published() == ids)


def test_a_secret_is_changed_without_a_roll(namespace: Namespace, tmp_path: Path) -> None:
    """Both secrets are good while one replaces the other, then only the new one; no pod is started anew."""
    namespace.release(namespace.values(replicas=1), directory=tmp_path)
    before = namespace.uids()
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
    assert namespace.uids() == before


def test_without_the_spool_it_is_a_deployment(namespace: Namespace, tmp_path: Path) -> None:
    """It makes its topics before it starts, so that it becomes ready, passes its test, and owns no volume."""
    namespace.release(namespace.values(spool={"enabled": False}), directory=tmp_path)
    assert f"read back from {STATUS}" in namespace.helm("test", "bridge", "--logs")
    assert namespace.claims() == []


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
    before = namespace.uids()
    changed = {**values, "config": {**values["config"], "log": {"level": "debug"}}}
    assert "schema" in await asyncio.to_thread(namespace.release, changed, directory=tmp_path, succeed=False)
    assert namespace.uids() == before
