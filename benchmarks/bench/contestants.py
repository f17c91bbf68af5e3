"""Who is measured: each a process that takes callbacks and puts their reports on a topic."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.build import PEERS, go_program, python_of
from bridge.lab.embedded.ports import Port

ROOT = Path(__file__).parents[2]
SECRET = "not-a-secret-but-an-example"  # noqa: S105
PATH = "/callbacks/chatapp/status"


class Place(NamedTuple):
    """Where a contestant stands."""

    port: int
    bootstrap: str
    topic: str
    directory: Path


class Command(NamedTuple):
    """How it is started."""

    argv: list[str]
    environment: dict[str, str]


class Contestant(NamedTuple):
    """One of them.

    Attributes:
        name: in tables, and for ``--contestants``.
        does: what it does with a report, for the reader of the tables.
        command: how it is started there; it builds what has to be built.
        path: of its URL.
        exact: whether each acknowledged report has to be there once, in health; else at least once.
        delivers: whether it puts anything into Kafka.
        same: whether its records are those of the bridge, which is checked.
        whole: whether a record is a callback's whole body; else one report.
    """

    name: str
    does: str
    command: Callable[[Place], Command]
    path: str = PATH
    exact: bool = False
    delivers: bool = True
    same: bool = False
    whole: bool = False


def _bridge(*more: str) -> Callable[[Place], Command]:
    def command(at: Place) -> Command:
        settings = {
            "server.host": "127.0.0.1",
            "server.port": at.port,
            "server.admin_host": "127.0.0.1",
            "server.admin_port": Port().number,
            "kafka.bootstrap_servers": at.bootstrap,
            "topics.status": at.topic,
            "spool.directory": at.directory / "spool",
        }
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        words += [word for assignment in more for word in ("--set", assignment)]
        return Command([sys.executable, "-m", "bridge", "serve", *words], {"BRIDGE_ACCESS__PATH_SECRETS": SECRET})

    return command


def _empty(at: Place) -> Command:
    return Command([sys.executable, str(Path(__file__).with_name("empty.py")), "--port", str(at.port)], {})


def _flags(at: Place) -> list[str]:
    return ["--port", str(at.port), "--bootstrap", at.bootstrap, "--topic", at.topic]


def _go(name: str, *more: str) -> Callable[[Place], Command]:
    return lambda at: Command([str(go_program(PEERS / name)), *_flags(at), *more], {})


def _one_broker(command: Callable[[Place], Command]) -> Callable[[Place], Command]:
    """For who takes a single address to begin with; the rest of the cluster is learned from it."""
    return lambda at: command(at._replace(bootstrap=at.bootstrap.partition(",")[0]))


def _collector(*more: str) -> Callable[[Place], Command]:
    return _one_broker(_go("collector", *more))


def _python(name: str, script: str) -> Callable[[Place], Command]:
    def command(at: Place) -> Command:
        python = python_of(PEERS / name / "requirements.txt")
        return Command([str(python), str(PEERS / name / script), *_flags(at)], {"PYTHONPATH": str(ROOT)})

    return command


_SAME = "the same event, id, nine headers and value bytes as the bridge"

CONTESTANTS = {
    each.name: each
    for each in (
        Contestant(
            "bridge", "as it ships: JSON, secret, spool and metrics on", _bridge(), f"{PATH}/{SECRET}", exact=True
        ),
        Contestant(
            "bridge-avro", "the same with Avro values", _bridge("events.format=avro"), f"{PATH}/{SECRET}", exact=True
        ),
        Contestant("franz", f"Go, franz-go: {_SAME}", _go("franz"), same=True),
        Contestant(
            "franz-gogc-100",
            "the same with Go's own setting of its collector",
            _go("franz", "--gogc", "100"),
            same=True,
        ),
        Contestant(
            "franz-bytes", "Go, franz-go: each report's bytes as they came, no headers", _go("franz", "--work", "bytes")
        ),
        Contestant(
            "litestar-confluent",
            f"Litestar, confluent-kafka: {_SAME}",
            _python("litestar_confluent", "litestar_peer.py"),
            same=True,
        ),
        Contestant(
            "faststream",
            f"FastStream, aiokafka, a publish a report: {_SAME}, and a header of its own",
            _one_broker(_python("faststream", "faststream_peer.py")),
        ),
        Contestant(
            "mq-bridge",
            "mq-bridge (Rust, configured): the whole body one record, as it came",
            _python("mq_bridge", "mq_bridge_peer.py"),
            whole=True,
        ),
        Contestant(
            "collector",
            "OpenTelemetry Collector: the whole body one record; answers before Kafka has it",
            _collector(),
            whole=True,
        ),
        Contestant(
            "collector-sync",
            "the same without its queue: answers when Kafka has it",
            _collector("--sync"),
            whole=True,
        ),
        Contestant("empty", "the bridge's server; the body is read and answered", _empty, delivers=False),
    )
}
