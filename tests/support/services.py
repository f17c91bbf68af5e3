"""Kafka as two services offer it, played by a proxy in front of Apache Kafka.

    async with LoginKafka(nodes=3) as kafka:
        service = ApsaraMQ()
        async with service.before(kafka.ports) as proxy:
            settings = {"kafka.bootstrap_servers": proxy.bootstrap_servers, **kafka.login(service)}
            service.then = lambda request: Fault(cut_answer_at=0) if request.number == 5 else None

What each one does is from its documentation. ``service.done`` counts it, so that a test can see that it happened.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.process import Owned
from support.kafka_answers import (
    CLUSTER_AUTHORIZATION_FAILED,
    codecs_refused,
    no_producer_id,
    settings_hidden,
    topics_refused,
    versions_capped,
)
from support.kafka_frames import (
    API_VERSIONS,
    CREATE_TOPICS,
    DESCRIBE_CONFIGS,
    INIT_PRODUCER_ID,
    METADATA,
    PRODUCE,
    Request,
)
from support.kafka_proxy import Fault, KafkaProxy, Script

USER, PASSWORD = "bridge", "a-password-of-the-tests"
NO_CODEC, GZIP, SNAPPY, LZ4 = range(4)
_LISTENER = "LOGIN"
_UNKNOWN_SERVER_ERROR: Final = -1


class Service:
    """The script of a service.

    Attributes:
        mechanism: How clients log in.
        max_request_bytes: The connection is closed when a larger request begins; None: Kafka's own limit.
        codecs: The codecs that it takes; a batch with another one is refused with UNSUPPORTED_COMPRESSION_TYPE.
        then: Decides about the requests that the service itself passes on unchanged.
        done: How often the service answered otherwise than Kafka, by API key.
    """

    mechanism: str
    max_request_bytes: int | None = None
    codecs: Collection[int]

    def __init__(self) -> None:
        self.then: Script | None = None
        self.done: Counter[int] = Counter()

    def __call__(self, request: Request) -> Fault | None:
        """See ``Script``."""
        fault = codecs_refused(request, self.codecs) if request.api_key == PRODUCE else self.play(request)
        if fault is not None:
            self.done[request.api_key] += 1
            return fault
        return self.then and self.then(request)

    def play(self, request: Request) -> Fault | None:
        """What it does with a request other than Produce."""
        raise NotImplementedError

    def before(self, ports: Sequence[Callable[[], int]]) -> KafkaProxy:
        """The proxy that plays it, in front of the brokers with these ports."""
        proxy = KafkaProxy(ports, self)
        proxy.max_request_bytes = self.max_request_bytes
        return proxy


class ApsaraMQ(Service):
    """ApsaraMQ for Kafka with cloud storage: no producer ids, topics by the console, the versions of Kafka 2.6."""

    mechanism = "SCRAM-SHA-256"
    codecs = (NO_CODEC, GZIP, SNAPPY, LZ4)
    shown = ("cleanup.policy", "max.message.bytes", "retention.ms")
    """The settings of a topic that it shows."""

    def play(self, request: Request) -> Fault | None:
        """See ``Service``."""
        if request.api_key == API_VERSIONS:
            return versions_capped(_KAFKA_2_6, others=False)
        if request.api_key == INIT_PRODUCER_ID:
            return no_producer_id(CLUSTER_AUTHORIZATION_FAILED)
        if request.api_key == CREATE_TOPICS:
            return topics_refused(CLUSTER_AUTHORIZATION_FAILED)
        if request.api_key == DESCRIBE_CONFIGS:
            return settings_hidden(self.shown)
        return None


class EventHubs(Service):
    """Azure Event Hubs: gzip alone, a limit for requests, and no producer id at the first two times.

    Attributes:
        refusals: The codes with which the next questions for a producer id are refused.
    """

    mechanism = "PLAIN"
    codecs = (NO_CODEC, GZIP)
    max_request_bytes = 1_046_528

    def __init__(self) -> None:
        super().__init__()
        self.refusals = [_UNKNOWN_SERVER_ERROR, CLUSTER_AUTHORIZATION_FAILED]

    def play(self, request: Request) -> Fault | None:
        """See ``Service``."""
        if request.api_key == INIT_PRODUCER_ID and self.refusals:
            return no_producer_id(self.refusals.pop(0))
        return None


class LoginKafka(Owned):
    """Brokers with a listener on which one user logs in, without TLS; ``async with`` starts them.

    Args:
        nodes: 1 to 3.

    Attributes:
        kafka: The brokers; their main listener asks for no login.
    """

    def __init__(self, nodes: int = 1) -> None:
        plain = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        listener = f"listener.name.{_LISTENER.lower()}"
        self.kafka = EmbeddedKafka(
            nodes,
            listeners={"CLIENT": "PLAINTEXT", _LISTENER: "SASL_PLAINTEXT"},
            properties={
                f"{listener}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
                f"{listener}.plain.sasl.jaas.config": plain,
                f"{listener}.scram-sha-256.sasl.jaas.config": scram,
            },
        )

    async def start(self) -> None:
        """Start them, and make the user."""
        await self.kafka.start()
        await asyncio.to_thread(self._make_user)

    async def close(self) -> None:
        """Remove them."""
        await self.kafka.close()

    def _make_user(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers, "log_level": 0})
        credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        made = admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, credentials, PASSWORD.encode())])
        made[USER].result(30)

    @property
    def ports(self) -> list[Callable[[], int]]:
        """For a proxy in front of the listener with the login."""
        return [lambda node=node: node.port(_LISTENER) for node in self.kafka.nodes]  # type: ignore[misc]

    def login(self, service: Service) -> dict[str, Any]:
        """Keys of ``[kafka]`` with which the user logs in as the service wants it."""
        return {
            "kafka.security_protocol": "SASL_PLAINTEXT",
            "kafka.sasl_mechanism": service.mechanism,
            "kafka.sasl_plain_username": USER,
            "kafka.sasl_plain_password": PASSWORD,
        }


# The newest version of each request that Kafka 2.6 offers to clients; of CreateTopics and DescribeConfigs those that
# ``kafka_answers`` reads, which are Kafka 2.3's.
_KAFKA_2_6: Final = {
    PRODUCE: 8, 1: 11, 2: 5, METADATA: 9, 8: 8, 9: 7, 10: 3, 11: 7, 12: 4, 13: 4, 14: 5, 15: 5, 16: 4, 17: 1,
    API_VERSIONS: 3, CREATE_TOPICS: 4, 20: 4, 21: 2, INIT_PRODUCER_ID: 3, 23: 3, 24: 1, 25: 1, 26: 1, 28: 3, 29: 2, 30: 2,
    31: 2, DESCRIBE_CONFIGS: 2, 33: 1, 34: 1, 35: 2, 36: 2, 37: 2, 38: 2, 39: 2, 40: 2, 41: 2, 42: 2, 43: 2, 44: 1,
    45: 0, 46: 0, 47: 0, 48: 0, 49: 0,
}  # fmt: skip
