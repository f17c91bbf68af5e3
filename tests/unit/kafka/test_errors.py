"""What an error calls for, and how it is named to people."""

import pytest
from aiokafka.errors import KafkaError, KafkaTimeoutError, PolicyViolationError, UnknownError

from bridge.kafka.errors import error_text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PolicyViolationError(), "PolicyViolationError (44)"),
        (UnknownError(), "UnknownError (-1, or a code that the client has no name for)"),
        (KafkaTimeoutError(), "KafkaTimeoutError"),
        (KafkaError(), "KafkaError"),
        (OSError("unreachable"), "OSError"),
    ],
)
def test_an_error_has_kafkas_number_for_it(error: BaseException, text: str) -> None:
    """Where there is one; one that the client has no name for is not said to be another."""
    assert error_text(error) == text
