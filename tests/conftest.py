"""A real Kafka for every test that asks for one, and never a skip: see ``support/brokers.py`` for which.

``kafka_bootstrap``   one broker for the session
``topic``             makes topics on it: ``name = await topic(partitions=3)``
``cluster``           three embedded nodes, whole again after each test
``cluster_topic``     makes topics on those
``login_kafka``       one embedded node with a login
``registry``          a Schema Registry, whole again after each test; take subjects of unique names
``java``              the Java programs beside the tests; ``java_partitions``, ``java_read`` are two of them
"""

import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
from support import brokers
from support.apart import run_apart
from support.java import JavaPrograms, compile_programs
from support.limits import (  # noqa: F401 - hooks, which pytest looks for here
    pytest_configure,
    pytest_enter_pdb,
    pytest_exception_interact,
    pytest_itemcollected,
    pytest_runtest_logfinish,
    pytest_timeout_set_timer,
    pytest_unconfigure,
)
from support.services import LoginKafka
from support.topics import create_topic
from support.workers import (  # noqa: F401 - hooks, which pytest looks for here
    pytest_collection_modifyitems,
    pytest_runtest_protocol,
    pytest_sessionfinish,
    pytest_testnodedown,
    pytest_xdist_make_scheduler,
)

from bridge.lab.embedded import EmbeddedKafka, EmbeddedRegistry

if sys.version_info < (3, 12):
    # There a parse fails where another runs in the middle of it (gh-106905): as when the garbage collector finds a future whose
    # exception nobody asked for, and the traceback that is then logged parses its lines to underline a part of each.
    traceback._extract_caret_anchors_from_line_segment = lambda _segment: None  # type: ignore[attr-defined]


class MakeTopic(Protocol):
    """Makes a topic; see ``support.topics.create_topic`` for what its arguments mean."""

    async def __call__(
        self,
        name: str | None = None,
        *,
        partitions: int = 1,
        replication: int | None = None,
        config: dict[str, str] | None = None,
    ) -> str:
        """Make it; give its name."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what has a target of its own, unless it is named: ``make test-image``, ``test-kubernetes``, ``test-versions``."""
    own_target = {"image", "kubernetes", "versions"}
    apart = collection_path.parent == Path(__file__).parent and collection_path.name in own_target
    return True if apart and not any(collection_path.name in Path(each).parts for each in config.args) else None


def pytest_report_header() -> str:
    """Say which Kafka the tests will have."""
    return brokers.headline()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which Kafka the tests had."""
    for line in brokers.used:
        terminalreporter.write_line(f"kafka: used {line}")


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """``host:port`` of a broker that lives as long as the session; it makes no topics by itself."""
    with brokers.broker() as address:
        yield address


@pytest.fixture
def topic(kafka_bootstrap: str) -> MakeTopic:
    """Makes topics of unique names on the session's broker."""
    return partial(create_topic, kafka_bootstrap)


@pytest.fixture(scope="session")
def _three_nodes() -> Iterator[EmbeddedKafka]:
    """Three nodes for the session; they belong to no loop."""
    with brokers.running(EmbeddedKafka(nodes=3)) as kafka:
        brokers.used.append("embedded, three nodes")
        yield kafka


@pytest.fixture
def cluster(_three_nodes: EmbeddedKafka) -> Iterator[EmbeddedKafka]:
    """Three embedded nodes, to be hurt at will: afterwards all are up again and every replica is in sync."""
    yield _three_nodes
    run_apart(_three_nodes.heal())


@pytest.fixture
def cluster_topic(cluster: EmbeddedKafka) -> MakeTopic:
    """Makes topics of unique names on the three nodes, replicated three times unless told."""
    return partial(create_topic, cluster.bootstrap_servers)


@pytest.fixture(scope="session")
def login_kafka() -> Iterator[LoginKafka]:
    """One embedded node with a login, for the session; a service is played before it (``support/services.py``)."""
    with brokers.running(LoginKafka()) as kafka:
        brokers.used.append("embedded, one node with a login")
        yield kafka


@pytest.fixture(scope="session")
def _registry() -> Iterator[EmbeddedRegistry]:
    """One registry for the session; it belongs to no loop."""
    with brokers.running(EmbeddedRegistry()) as registry:
        yield registry


@pytest.fixture
def registry(_registry: EmbeddedRegistry) -> Iterator[EmbeddedRegistry]:
    """A real Schema Registry, to be hurt at will: afterwards it is up again, with all that was registered."""
    yield _registry
    run_apart(_registry.heal())


@pytest.fixture(scope="session")
def java(tmp_path_factory: pytest.TempPathFactory) -> JavaPrograms:
    """The Java programs of ``tests/java``, compiled."""
    return JavaPrograms(run_apart(compile_programs(tmp_path_factory.mktemp("classes"))))


@pytest.fixture
def java_partitions(
    java: JavaPrograms,
) -> Callable[[list[bytes], list[int]], Awaitable[dict[tuple[bytes, int], int]]]:
    """Where Java's own partitioner puts keys, by key and count; to be awaited with keys and counts."""
    return java.partitions


@pytest.fixture
def java_read(java: JavaPrograms) -> Callable[[str, str, int], Awaitable[list[dict[str, Any]]]]:
    """Reads records with the plain Java client; to be awaited with bootstrap, topic and count."""
    return java.read
