"""The errors of confluent-kafka in words."""

import pytest
from confluent_kafka import KafkaError

from bridge.errors import KafkaUnavailable
from bridge.operate.reading.errors import in_words


@pytest.mark.parametrize(
    ("code", "about_the_group"),
    [(KafkaError._WAIT_COORD, True), (KafkaError._TRANSPORT, False)],
)
def test_a_coordinator_that_is_not_found_may_be_refused(code: int, *, about_the_group: bool) -> None:
    """The library waits for it also where Kafka refuses the group."""
    error = in_words(KafkaError(code), "committing")
    assert isinstance(error, KafkaUnavailable)
    assert ("whether this user may use the consumer group" in str(error)) is about_the_group
