"""A namespace of a real Kubernetes with a real Kafka in it, and Helm to put the chart there.

``KUBECONFIG`` leads to the cluster; ``kubectl`` is on the PATH; Helm is the one of ``support.helm``; the images
``BRIDGE_TEST_IMAGE`` (``chatapp-bridge:dev``) and ``apache/kafka:4.1.0`` are in the cluster or can be pulled; services can be
reached from here.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from bridge.lab.simulate.check import CheckResult, Consumed, check
from bridge.lab.simulate.identity import raw_sha256
from bridge.lab.simulate.ledger import Entry
from support.apart import run_apart
from support.helm import helm
from support.topics import consume_all, until

CHART = Path(__file__).parents[2] / "helm/chatapp-bridge"
IMAGE = os.environ.get("BRIDGE_TEST_IMAGE", "chatapp-bridge:dev")
SECRET = "a-secret-of-the-tests-0123456789"  # noqa: S105 - opens nothing but a test's own release
STATUS, QUARANTINE = "chatapp.status.v1", "chatapp.status.quarantine.v1"
WAIT = "180s"
LATE_SECONDS = 3.0
"""The provider waits no longer for an answer."""

_VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata: {name: NAME}
spec:
  capacity: {storage: 8Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: ""
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: NAMESPACE, name: CLAIM}
  local: {path: FOLDER}
  nodeAffinity:
    required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: Exists}]}]}
"""
_KAFKA = """
apiVersion: v1
kind: Service
metadata: {name: kafka}
spec:
  selector: {app: kafka}
  publishNotReadyAddresses: true
  ports: [{name: kafka, port: 9092}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: kafka}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 4Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: kafka, labels: {app: kafka}}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false  # KAFKA_PORT and its like would be taken for settings
  securityContext: {runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: kafka
      image: apache/kafka:4.1.0
      imagePullPolicy: IfNotPresent
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      env:
        - {name: KAFKA_NODE_ID, value: "1"}
        - {name: KAFKA_PROCESS_ROLES, value: "broker,controller"}
        - {name: KAFKA_CONTROLLER_QUORUM_VOTERS, value: "1@localhost:9093"}
        - {name: KAFKA_LISTENERS, value: "CLIENT://:9092,CONTROLLER://:9093,INTERNAL://:9094"}
        - {name: KAFKA_ADVERTISED_LISTENERS, value: "CLIENT://ADDRESS:9092,INTERNAL://localhost:9094"}
        - {name: KAFKA_LISTENER_SECURITY_PROTOCOL_MAP, value: "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT"}
        - {name: KAFKA_CONTROLLER_LISTENER_NAMES, value: CONTROLLER}
        - {name: KAFKA_INTER_BROKER_LISTENER_NAME, value: INTERNAL}
        - {name: KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR, value: "1"}
        - {name: KAFKA_LOG_DIRS, value: /var/lib/kafka/data}
        - {name: KAFKA_AUTO_CREATE_TOPICS_ENABLE, value: "false"}
      readinessProbe: {tcpSocket: {port: 9092}, periodSeconds: 1}
      resources: {limits: {memory: 1Gi}}
      volumeMounts: [{name: data, mountPath: /var/lib/kafka/data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: kafka}}]
"""


def run(*command: str | Path, input_text: str | None = None, succeed: bool = True) -> str:
    """Run to the end; what it printed, both streams.

    Raises:
        AssertionError: It failed although it should not; says what it printed.
    """
    done = subprocess.run(
        list(map(str, command)),
        input=input_text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if succeed:
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


class Namespace:
    """One namespace, held to Pod Security's `restricted`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kafka = ""
        self._folders: dict[str, Path] = {}  # by their volumes

    def kubectl(self, *arguments: str, input_text: str | None = None, succeed: bool = True) -> str:
        """Kubectl within it; what it printed."""
        return run("kubectl", "--namespace", self.name, *arguments, input_text=input_text, succeed=succeed)

    def helm(self, *arguments: str | Path, succeed: bool = True) -> str:
        """Helm within it; what it printed."""
        return run(helm(), "--namespace", self.name, *arguments, succeed=succeed)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object as it is now."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "--output", "json"))
        return found

    def pods(self, component: str = "bridge") -> list[dict[str, Any]]:
        """The chart's pods of that component."""
        selector = f"app.kubernetes.io/name=chatapp-bridge,app.kubernetes.io/component={component}"
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return items

    def claims(self) -> list[str]:
        """The names of the bridges' claims."""
        names = self.kubectl("get", "pvc", "-l", "app.kubernetes.io/name=chatapp-bridge", "--output", "name").split()
        return [name.partition("/")[2] for name in names]

    def apply(self, text: str) -> None:
        """Create or change objects."""
        self.kubectl("apply", "--filename", "-", input_text=text)

    def start_kafka(self) -> None:
        """One broker, whose service's address it advertises, so that it can be reached from pods and from here."""
        rest, _, pod = _KAFKA.rpartition("---")
        self.apply(rest)
        address = self.get("service", "kafka")["spec"]["clusterIP"]
        self.apply(pod.replace("ADDRESS", address))
        self.kubectl("wait", "--for=condition=Ready", "pod/kafka", f"--timeout={WAIT}")
        self.kafka = f"{address}:9092"

    def stop_kafka(self) -> None:
        """End it; its topics stay for the next one. Returns when it is gone: forced, it might still acknowledge for a while."""
        self.kubectl("delete", "pod", "kafka", "--grace-period=1", "--ignore-not-found")

    def values(self, **more: Any) -> dict[str, Any]:
        """Values that suit this cluster: small, quick to stop, topics as one broker can give them."""
        repository, _, tag = IMAGE.rpartition(":")
        config: dict[str, Any] = {
            "kafka": {"bootstrap_servers": [self.kafka]},
            "spool": {"max_bytes": 1 << 28, "min_free_bytes": 1 << 24},
            "delivery": {"memory_bytes": 1 << 25},
            "limits": {"in_flight_bytes": 1 << 25},
        }
        return {
            "image": {"repository": repository, "tag": tag},
            "fullnameOverride": "bridge",
            "topicsJob": {"singleBroker": True},
            # As this cluster's DNS listens behind its service.
            "networkPolicy": {"dnsPorts": [53, 10053]},
            "secrets": {"access": {"path_secrets_file": {"name": "bridge", "key": "path-secrets"}}},
            "config": {**config, **more.pop("config", {})},
            "spool": {"size": "1Gi", **more.pop("spool", {})},
            "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
            "minReadySeconds": 1,
            "preStopSeconds": 2,
            **more,
        }

    def release(self, values: Mapping[str, Any], *arguments: str, directory: Path, succeed: bool = True) -> str:
        """``helm upgrade --install`` of the chart, waiting until all is there; what Helm printed."""
        file = directory / "values.yaml"
        file.write_text(yaml.safe_dump(dict(values)))
        arguments = ("--install", "--wait", f"--timeout={WAIT}", "--values", str(file), *arguments)
        return self.helm("upgrade", "bridge", CHART, *arguments, succeed=succeed)

    def url(self) -> str:
        """The callback address at the Service, with the secret."""
        service = self.get("service", "bridge")
        return f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}/callbacks/chatapp/status/{SECRET}"

    def spool(self, pod: str) -> dict[str, Any]:
        """What waits in a pod's spool."""
        command = "chatapp-bridge spool show --json --config /etc/chatapp-bridge/config/bridge.toml"
        shown: dict[str, Any] = json.loads(self.kubectl("exec", pod, "--", *command.split()))
        return shown

    def waiting(self) -> dict[str, int]:
        """Reports in the spool of each bridge that runs."""
        names = [each["metadata"]["name"] for each in self.pods()]
        return {name: self.spool(name)["reports"] for name in names}

    def uids(self) -> set[tuple[str, int]]:
        """The bridges' pods, and how often each was started anew."""
        return {
            (pod["metadata"]["uid"], sum(each["restartCount"] for each in pod["status"]["containerStatuses"]))
            for pod in self.pods()
        }

    def metrics(self) -> dict[str, float]:
        """A scrape of the first bridge: each sample by its name and labels."""
        address = self.pods()[0]["status"]["podIP"]
        text = httpx.get(f"http://{address}:8081/metrics", timeout=30).text
        samples = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def published(self) -> set[str]:
        """The message ids on the topic of events."""
        return {record.key.decode() for record in run_apart(consume_all(self.kafka, STATUS))}

    def checked(self, entries: Iterable[Entry], *, ordered: bool, seconds: float = 60) -> CheckResult:
        """Whether what is on the topics follows from those callbacks and their answers."""
        reads = [
            run_apart(consume_all(self.kafka, topic, keep=keep, seconds=seconds))
            for topic, keep in ((STATUS, _consumed), (QUARANTINE, _raw))
        ]
        return check(entries, reads[0], [each.sha256 for each in reads[1]], ordered=ordered)

    def add_volume(self, claim: str, folder: Path) -> None:
        """Make a folder of this machine, until the namespace's end, and the volume of a claim without a class.

        As it does with a disk, the kubelet gives it to the pod's ``fsGroup``.
        """
        folder.mkdir()
        self._folders[f"{self.name}-{claim}"] = folder
        text = _VOLUME.replace("FOLDER", str(folder)).replace("NAMESPACE", self.name).replace("CLAIM", claim)
        self.apply(text.replace("NAME", f"{self.name}-{claim}"))

    def remove(self) -> None:
        """Remove it, with what `add_volume` made; waits for none of it."""
        run("kubectl", "delete", "namespace", self.name, "--wait=false", succeed=False)
        for volume, folder in self._folders.items():
            run("kubectl", "delete", "persistentvolume", volume, "--wait=false", succeed=False)
            shutil.rmtree(folder, ignore_errors=True)

    def diagnosis(self) -> str:
        """What a person would look at first."""
        asked = ("get all,pvc,networkpolicies --output wide", "get events --sort-by=.lastTimestamp")
        texts = [self.kubectl(*each.split(), succeed=False) for each in asked]
        logs = [f"{each}\n{self.kubectl('logs', each, '--tail=30', succeed=False)}" for each in self._names()]
        return "\n".join([*texts, *logs])

    def _names(self) -> list[str]:
        return self.kubectl("get", "pods", "--output", "name", succeed=False).split()


def push(url: str, *message_ids: str) -> int:
    """Push a report for each, in one callback; the status of the answer.

    A Service leads to a pod some moments after the pod is ready, so a refused connection is tried again.
    """
    reports = [{"MessageId": each, "Status": "Sent", "To": "8613800000000"} for each in message_ids]
    statuses: list[int] = []

    def is_answered() -> bool:
        with suppress(httpx.ConnectError):
            answer = httpx.post(url, json=reports, timeout=LATE_SECONDS, headers={"connection": "close"})
            statuses.append(answer.status_code)
        return bool(statuses)

    eventually(is_answered)
    return statuses[0]


@contextmanager
def provider(url: str, ledger: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The simulated provider, with more of its options; what it prints can be read."""
    command = ["simulate", "--url", url, "--allow-remote", "--real-statuses", "--ledger", str(ledger), *options]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([sys.executable, "-m", "bridge", *command], **streams) as simulated:
        try:
            yield simulated
        finally:
            simulated.kill()


class _Raw(NamedTuple):
    sha256: str
    partition: int
    offset: int


def _consumed(record: Any) -> Consumed:
    return Consumed(dict(record.headers)["ce_id"].decode(), record.key.decode(), record.partition, record.offset)


def _raw(record: Any) -> _Raw:
    return _Raw(raw_sha256(record.value), record.partition, record.offset)


def address_for_pods() -> str | None:
    """The address of a node where it is this machine's, so that pods reach what listens there; else None."""
    path = '{.items[0].status.addresses[?(@.type=="InternalIP")].address}'
    address = run("kubectl", "get", "nodes", "--output", f"jsonpath={path}")
    with socket.socket() as tried:
        try:
            tried.bind((address, 0))
        except OSError:
            return None
    return address


@contextmanager
def new_namespace() -> Iterator[Namespace]:
    """A new one with Kafka and the secret; says how things stood at its end, and is removed whatever happened."""
    name = f"bridge-{uuid.uuid4().hex[:8]}"
    run("kubectl", "create", "namespace", name)
    space = Namespace(name)
    try:
        for mode in ("enforce", "warn"):
            run("kubectl", "label", "namespace", name, f"pod-security.kubernetes.io/{mode}=restricted")
        space.start_kafka()
        space.kubectl("create", "secret", "generic", "bridge", f"--from-literal=path-secrets={SECRET}")
        try:
            yield space
        finally:
            print(space.diagnosis())  # noqa: T201 - pytest shows it beside a failure
    finally:
        space.remove()


def eventually(holds: Any, seconds: float = 90.0) -> None:
    """Ask again and again until it holds; what a cluster does comes in its own time.

    Raises:
        TimeoutError: It did not.
    """

    async def ask() -> bool:
        return bool(await asyncio.to_thread(holds))

    async def wait() -> None:
        async with asyncio.timeout(seconds):
            await until(ask, 0.5)

    run_apart(wait())
