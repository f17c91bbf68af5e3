"""What each error of a Produce answer calls for, and how it is named to people."""

import pytest
from aiokafka.errors import for_code

from bridge.kafka.errors import CLOSED, MISSING, MOVED, NOT_SENT, TIMED_OUT, UNREADABLE, Action, ProduceError, code_name

NOT_APPENDED = {
    10: Action.SPLIT,
    18: Action.SPLIT,
    19: Action.RETRY,
    29: Action.RETRY,
    32: Action.CLOCK,
    43: Action.CODEC,
    44: Action.REFUSE,
    76: Action.CODEC,
    87: Action.REFUSE,
}
"""All answers that say that the batch is not in the log. Only after these may its numbers be used for other records."""
NUMBERS_UNFIT = (45, 47, 59)
NEWEST_NAMED = 133
OTHER_NAME_IN_AIOKAFKA = {-1, 0, 6, 10, 13, 17, 39}


@pytest.mark.parametrize("code", [-1, *range(1, NEWEST_NAMED + 1), 999, 32767, -32768])
def test_each_code_has_one_action(code: int) -> None:
    """A batch may be in the log unless the code is one of the few that say it is not; whatever Kafka adds later included."""
    error = ProduceError(code)
    expected = NOT_APPENDED.get(code, Action.RENUMBER if code in NUMBERS_UNFIT else Action.RESEND)
    assert error.action is expected
    assert error.not_appended == (code in NOT_APPENDED)
    assert error.is_answer


@pytest.mark.parametrize("error", [CLOSED, TIMED_OUT, MOVED, UNREADABLE, MISSING, NOT_SENT])
def test_without_an_answer_a_batch_may_be_in_the_log(error: ProduceError) -> None:
    """And nobody is to be told of a refusal."""
    assert error.action is Action.RESEND
    assert not error.not_appended
    assert not error.is_answer
    assert error.of_the_leader
    assert error.name == error.text == error.message


@pytest.mark.parametrize("code", [3, 5, 6, 7, 13, 19, 20, 56, 74, 75])
def test_what_passes_with_the_leader_is_no_refusal(code: int) -> None:
    """A leader that moves, followers that are late, a disk that failed: looked for in the cluster's metadata."""
    assert ProduceError(code).of_the_leader


@pytest.mark.parametrize("code", [-1, 10, 29, 32, 43, 44, 45, 47, 59, 76, 87, 999])
def test_what_does_not_is_the_clusters_or_the_records(code: int) -> None:
    """More of the cluster's metadata would not help."""
    assert not ProduceError(code).of_the_leader


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (-1, "UNKNOWN_SERVER_ERROR (-1)"),
        (6, "NOT_LEADER_OR_FOLLOWER (6)"),
        (10, "MESSAGE_TOO_LARGE (10)"),
        (20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND (20)"),
        (29, "TOPIC_AUTHORIZATION_FAILED (29)"),
        (32, "INVALID_TIMESTAMP (32)"),
        (44, "POLICY_VIOLATION (44)"),
        (47, "INVALID_PRODUCER_EPOCH (47)"),
        (56, "KAFKA_STORAGE_ERROR (56)"),
        (59, "UNKNOWN_PRODUCER_ID (59)"),
        (76, "UNSUPPORTED_COMPRESSION_TYPE (76)"),
        (87, "INVALID_RECORD (87)"),
        (89, "THROTTLING_QUOTA_EXCEEDED (89)"),
        (90, "PRODUCER_FENCED (90)"),
        (NEWEST_NAMED, "SHARE_SESSION_LIMIT_REACHED (133)"),
        (NEWEST_NAMED + 1, "UNKNOWN (134)"),
        (-2, "UNKNOWN (-2)"),
        (999, "UNKNOWN (999)"),
    ],
)
def test_a_code_has_kafkas_name_and_its_number(code: int, name: str) -> None:
    """One that has no name here is not said to be another."""
    assert code_name(code) == name


def test_the_names_are_those_that_aiokafka_has() -> None:
    """No line of the table is missing: then all names behind it would be another code's."""
    theirs = {code: for_code(code) for code in range(-1, NEWEST_NAMED)}
    known = [code for code, error in theirs.items() if error.errno == code and code not in OTHER_NAME_IN_AIOKAFKA]
    assert len(known) > 60
    assert [code_name(code) for code in known] == [f"{theirs[code].message} ({code})" for code in known]


def test_what_a_broker_says_is_told() -> None:
    """The metric has the code only, so that it has a bounded number of values."""
    said = ProduceError(87, "Compacted topic cannot accept message without key")
    assert said.name == "INVALID_RECORD (87)"
    assert said.text == "INVALID_RECORD (87): Compacted topic cannot accept message without key"
    assert ProduceError(87).text == "INVALID_RECORD (87)"
