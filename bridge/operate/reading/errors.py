"""The errors of confluent-kafka in words, and which of them waiting can't help."""

from typing import Final

from confluent_kafka import KafkaError, KafkaException

from bridge.errors import BridgeError, KafkaUnavailable, ReplayError

_REFUSED: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this user may not do that with the topic; grant it Read, or Write for a target",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "this user may not use the consumer group; grant it Read",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "this user may not use the transactional id; grant it Write",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "this user may not do that with the cluster; grant it IdempotentWrite, or set "
    'kafka.idempotence = "false" where Kafka gives no producer ids',
    KafkaError.SASL_AUTHENTICATION_FAILED: "the brokers refuse these credentials; look at kafka.sasl_*",
    KafkaError._AUTHENTICATION: "the brokers refuse these credentials; look at kafka.sasl_*",  # noqa: SLF001 - its public codes
    KafkaError._SSL: "TLS could not be agreed on; look at kafka.security_protocol and kafka.ssl_*",  # noqa: SLF001
    KafkaError.UNKNOWN_TOPIC_OR_PART: "there is no such topic, or this user may not see it",
    KafkaError._UNKNOWN_TOPIC: "there is no such topic, or this user may not see it",  # noqa: SLF001
    KafkaError.TOPIC_EXCEPTION: "no topic can have this name",
    KafkaError._UNKNOWN_PARTITION: "there is no such partition",  # noqa: SLF001
}
IGNORED_WITHOUT_A_GROUP: Final = {KafkaError.GROUP_AUTHORIZATION_FAILED}


def error_of(exception: KafkaException) -> KafkaError:
    """What went wrong, of an exception of the library."""
    error: KafkaError = exception.args[0]
    return error


def in_words(error: KafkaError, doing: str) -> BridgeError:
    """The error to raise; ``doing`` says what was being done: ``reading topic x``."""
    if error.code() in _REFUSED:
        return ReplayError(f"{doing}: {_REFUSED[error.code()]} ({error.str()})")
    if error.fatal():
        return ReplayError(f"{doing}: {error.str()} ({error.name()})")
    if error.code() == KafkaError._RESOLVE:  # noqa: SLF001 - as above
        return KafkaUnavailable(
            f"{doing}: {error.str()}: DNS gives no address; look at kafka.bootstrap_servers, at /etc/resolv.conf, and in "
            "Kubernetes at networkPolicy.dnsPorts"
        )
    return KafkaUnavailable(f"{doing}: {error.str()} ({error.name()}); look at the brokers and kafka.bootstrap_servers")


def more_telling(known: KafkaError | None, latest: KafkaError) -> KafkaError:
    """Which of two errors to keep: the later, unless it only sums up the earlier."""
    return known if known is not None and latest.code() == KafkaError._ALL_BROKERS_DOWN else latest  # noqa: SLF001


def hopeless(error: KafkaError) -> bool:
    """Whether waiting can't help."""
    return error.fatal() or error.code() in _REFUSED
