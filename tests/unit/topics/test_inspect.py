"""What a look at the topics makes of unusual answers: settings that Kafka hides, refusals by a policy, metadata of all kinds."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataResponse_v5

from bridge.config import load
from bridge.errors import ConnectionEnded, TopicsError, UnsupportedBroker
from bridge.topics.inspect import Finding, admin_client, brokers, create, inspect, partitions_of
from bridge.topics.refusals import settings_in
from bridge.topics.spec import DeclaredTopic

NAME = "chatapp.status.v1"
TOPIC = DeclaredTopic(NAME, 2, 1, {"retention.ms": "1000", "cleanup.policy": "delete"})
AS_DECLARED: list[Any] = [
    ("retention.ms", "1000", False, 1, False, []),
    ("cleanup.policy", "delete", False, 1, False, []),
]
ALL_HIDDEN = [
    "retention.ms: declared 1000, Kafka does not show it",
    "cleanup.policy: declared delete, Kafka does not show it",
]
LEAVE_RETENTION = '; to leave it to the cluster, write "retention.ms" = "" under the topic\'s config in topics.file'
LEAVE_ANY = (
    '; if the cluster\'s policy is about a setting, leave it to the cluster: write "SETTING" = "" under the topic\'s config '
    "in topics.file"
)
ONE_BROKER = [(1, "localhost", 9092, None)]


class Client:
    """An `Admin` with one answer for each request.

    Attributes:
        topics: What Metadata says of topics.
        settings: What DescribeConfigs says: its resources.
        created: What CreateTopics says: name, code, message.
        policy: The settings that CreateTopics refuses where an order is only checked; ``*``: a topic without any, too.
        asked: The topics of each request for metadata.
    """

    def __init__(self) -> None:
        parts: list[Any] = [(0, number, 1, [1], [1], []) for number in range(2)]
        self.topics: list[Any] = [(0, NAME, False, parts)]
        self.settings: Any = [(0, "", 2, NAME, AS_DECLARED)]
        self.created: list[tuple[str, int, str | None]] = []
        self.policy: set[str] = set()
        self.asked: list[Any] = []

    async def metadata(self, topics: Sequence[str]) -> MetadataResponse_v5:
        """As `Admin`'s."""
        self.asked.append(list(topics))
        return MetadataResponse_v5(
            throttle_time_ms=0, brokers=ONE_BROKER, cluster_id="c", controller_id=1, topics=self.topics
        )

    async def ask(self, _request: DescribeConfigsRequest) -> Any:
        """As `Admin`'s."""
        return SimpleNamespace(resources=self.settings)

    async def order(self, request: CreateTopicsRequest) -> Any:
        """As `Admin`'s; an order that is only to be checked is refused if it has one of the settings of ``policy``."""
        if not request.validate_only:
            return SimpleNamespace(topic_errors=self.created)
        (topic,) = request.create_topic_requests
        refused = "*" in self.policy or any(option in self.policy for option, _ in topic[4])
        return SimpleNamespace(topic_errors=[(topic[0], 44 if refused else 0, None)])


@pytest.fixture
def client() -> Any:
    """Everything is as declared."""
    return Client()


async def found(client: Any) -> Finding:
    """How the topic is."""
    (finding,) = await inspect(client, [TOPIC])
    return finding


# --- settings that are hidden ---------------------------------------------------------------------------------------------


async def test_a_topic_is_as_declared(client: Any) -> None:
    """The declared topics alone are asked for, and can't be created by that."""
    assert await found(client) == Finding(TOPIC, True, [], replication=1, not_shown=[])
    assert client.asked == [[NAME]]


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ([(0, "", 2, NAME, AS_DECLARED[1:])], ["retention.ms: declared 1000, Kafka does not show it"]),
        (
            [(0, None, 2, NAME, [("retention.ms", None, False, 5, True, []), *AS_DECLARED[1:]])],
            ["retention.ms: declared 1000, Kafka shows it without a value"],
        ),
        ([(0, "", 2, NAME, [])], ALL_HIDDEN),
        ([(0, "", 2, NAME, None)], ALL_HIDDEN),
        ([], ALL_HIDDEN),
        (None, ALL_HIDDEN),
    ],
)
async def test_a_setting_that_kafka_hides_is_unknown_and_not_weaker(
    client: Any, resources: Any, words: list[str]
) -> None:
    """Not listed, without a value, no list at all: the rest of the topic is compared all the same."""
    client.settings = resources
    finding = await found(client)

    assert [str(each) for each in finding.not_shown] == words
    assert (finding.differences, finding.weaker) == ([], [])
    client.topics = [(0, NAME, False, client.topics[0][3][:1])]
    assert (await found(client)).weaker == [f"topic {NAME}, partitions: declared 2, found 1"]


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [(29, "not you", "not you"), (29, None, "TOPIC_AUTHORIZATION_FAILED"), (999, "", "999")],
)
async def test_settings_that_may_not_be_read_are_an_error(
    client: Any, code: int, message: str | None, words: str
) -> None:
    """With Kafka's words, else its name of the code, or else its number."""
    client.settings = [(code, message, 2, NAME, [])]
    with pytest.raises(TopicsError, match=f"the settings of topic {NAME} can't be read: .*{words}"):
        await found(client)


# --- topics ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [3, 5, 29])
async def test_a_topic_that_is_not_there_or_hidden_is_missing(client: Any, code: int) -> None:
    """Also one that is being created, and has no partitions yet."""
    client.topics = [(code, NAME, False, [])]
    assert await found(client) == Finding(TOPIC, False, [])


async def test_a_topic_without_leaders_is_there(client: Any) -> None:
    """What is weaker does not depend on leaders."""
    client.topics = [(5, NAME, False, [(5, number, -1, [1], [], [1]) for number in range(2)])]
    assert (await found(client)).weaker == []


@pytest.mark.parametrize(
    ("code", "name"), [(-1, "UNKNOWN_SERVER_ERROR"), (17, "INVALID_TOPIC_EXCEPTION"), (999, "999")]
)
async def test_a_topic_that_kafka_does_not_describe_is_not_called_missing(client: Any, code: int, name: str) -> None:
    """``apply`` would create it."""
    client.topics = [(code, NAME, False, [])]
    with pytest.raises(TopicsError, match=f"does not describe topic {NAME}: .*{name}"):
        await partitions_of(client, [NAME])


async def test_the_number_of_brokers_is_asked_for_without_topics(client: Any) -> None:
    """The topics of others may be very many."""
    assert await brokers(client) == 1
    assert client.asked == [[]]


# --- refusals by a policy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message", "policy", "words"),
    [
        (44, "retention.ms <= 7 days.", set(), f"retention.ms <= 7 days.{LEAVE_RETENTION}"),
        (44, "Not here.", {"retention.ms"}, f"Not here.{LEAVE_RETENTION}"),
        (40, None, {"retention.ms"}, f"INVALID_CONFIG (40){LEAVE_RETENTION}"),
        (44, None, set(), f"POLICY_VIOLATION (44){LEAVE_ANY}"),
        (
            44,
            "Not like this.",
            {"*"},
            "Not like this.; Kafka refuses the topic without any setting, too: look at partitions",
        ),
        (
            38,
            "must be 3",
            set(),
            'must be 3; to leave it to the cluster, write replication_factor = "" under the topic',
        ),
        (37, "at most 6", set(), "at most 6; declare another number of partitions in topics.file"),
        (
            29,
            None,
            set(),
            "TOPIC_AUTHORIZATION_FAILED (29); grant this user the rights that `chatapp-bridge topics acls",
        ),
        (31, "no", set(), "no; grant this user the rights that `chatapp-bridge topics acls --operator NAME` prints"),
        (-1, "no", set(), "no"),
    ],
)
async def test_a_refusal_says_what_to_leave_to_the_cluster(
    client: Any, code: int, message: str | None, policy: set[str], words: str
) -> None:
    """The setting is named by Kafka's words, or else found by orders that are only checked; and others may manage topics."""
    client.created, client.policy = [(NAME, code, message)], policy
    with pytest.raises(TopicsError) as refused:
        await create(client, [TOPIC])

    assert str(refused.value).startswith(f"topic {NAME} could not be created: {words}")
    assert str(refused.value).endswith('; if others manage the topics, set topics.manage = "external"')


async def test_a_replication_that_an_old_kafka_does_not_decide_has_to_be_declared(client: Any) -> None:
    """To leave it to the cluster is no remedy: that was refused."""
    client.created = [(NAME, 38, "Replication factor must be larger than 0.")]
    with pytest.raises(TopicsError, match="declare replication_factor as a number"):
        await create(client, [msgspec.structs.replace(TOPIC, replication_factor=None)])


@pytest.mark.parametrize(
    ("reason", "named"),
    [
        ("retention.ms", ["retention.ms"]),
        ("Invalid value for 'retention.ms'.", ["retention.ms"]),
        ("Set no retention.ms. It is fixed", ["retention.ms"]),
        ("retention.ms,cleanup.policy: fixed", ["retention.ms", "cleanup.policy"]),
        ("delete.retention.ms is fixed", []),
        ("retention.ms.of.ours is fixed", []),
    ],
)
def test_a_setting_is_named_only_where_its_whole_name_is(reason: str, named: list[str]) -> None:
    """Many names are parts of others."""
    assert settings_in(reason, TOPIC.config) == named


async def test_a_request_that_a_service_does_not_offer_is_no_reason_to_try_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever of them it is."""

    @asynccontextmanager
    async def connected(_kafka: Any) -> AsyncIterator[Client]:
        yield Client()

    monkeypatch.setattr("bridge.topics.inspect.connected", connected)
    with pytest.raises(TopicsError, match=r'not offered; if others .* topics\.manage = "external"$'):
        async with admin_client(load(environment={}).settings.kafka):
            raise UnsupportedBroker("not offered")


# --- topics that others manage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [ConnectionEnded("the broker hung up"), UnsupportedBroker("not offered"), TimeoutError()]
)
async def test_a_topic_that_others_manage_is_there_even_if_its_settings_are_not_shown(
    client: Any, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, not offered or never answered: one line says so, and the missing topic is found all the same."""

    async def ask(_request: DescribeConfigsRequest) -> Any:
        raise failure

    monkeypatch.setattr(client, "ask", ask)
    external, other = (msgspec.structs.replace(TOPIC, name=name, expected=frozenset()) for name in (NAME, "other"))
    there, not_there = await inspect(client, [external, other])

    assert [str(each).partition(":")[0] for each in there.not_shown] == ["all settings"]
    assert (there.weaker, len(not_there.weaker)) == ([], 1)
    with pytest.raises(type(failure)):
        await inspect(client, [TOPIC])


async def test_settings_that_may_not_be_read_are_no_error_of_a_topic_that_others_manage(client: Any) -> None:
    """The broker's words are passed on."""
    client.settings = [(29, "not you", 2, NAME, [])]
    (finding,) = await inspect(client, [msgspec.structs.replace(TOPIC, expected=frozenset())])

    assert (finding.weaker, ["not you" in str(each) for each in finding.not_shown]) == ([], [True])


async def test_of_a_topic_that_others_manage_only_what_is_expected_is_weak(client: Any) -> None:
    """One replica is the owner's decision, and reported as such; retention was written into ``topics.file``."""
    client.topics = [(0, NAME, False, client.topics[0][3][:1])]
    client.settings = [(0, "", 2, NAME, [("retention.ms", "1", False, 1, False, []), *AS_DECLARED[1:]])]
    (finding,) = await inspect(client, [msgspec.structs.replace(TOPIC, expected=frozenset({"retention.ms"}))])

    assert finding.weaker == [f"topic {NAME}, retention.ms: declared 1000, found 1"]
    assert finding.left_to_owner == [f"topic {NAME}, partitions: declared 2, found 1"]
