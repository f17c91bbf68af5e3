"""The meaning of an answer to a Produce request: each error code of Kafka 4.1 has a name and one action.

Two questions decide the action. *Can the batch be in the log?* Only a few codes rule this out. Its sequence numbers
are then free for other records. After every other failure, the bridge must send the same records again under the same
numbers, or give the partition a new epoch. *Whose fault is it?* The cluster may be at fault even if the answer blames
the record: hosted services throttle with POLICY_VIOLATION.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple


class Action(StrEnum):
    """The action that a failed batch calls for."""

    RESEND = "resend"
    """The batch may be in the log: send the same records again, with the same sequence numbers."""
    RENUMBER = "renumber"
    """The sequence numbers do not match the broker's state: send the same records with a new epoch or producer id."""
    RETRY = "retry"
    """The broker did not append the batch, because of the cluster or missing rights: back off, up to a second."""
    SPLIT = "split"
    """The broker did not append the batch because it is too large: put fewer records into a batch."""
    CODEC = "codec"
    """The broker did not append the batch because it does not accept the codec: use another one."""
    CLOCK = "clock"
    """The broker did not append the batch because it refuses the time stamps: use the time of sending, once."""
    REFUSE = "refuse"
    """The broker did not append the batch, because of the records or of the cluster.

    Back off, up to 30 s, and put fewer records into a batch.
    """


NONE: Final = 0
TOPIC_AUTHORIZATION_FAILED: Final = 29
CLUSTER_AUTHORIZATION_FAILED: Final = 31
OUT_OF_ORDER_SEQUENCE_NUMBER: Final = 45
DUPLICATE_SEQUENCE_NUMBER: Final = 46
INVALID_PRODUCER_EPOCH: Final = 47
UNKNOWN_PRODUCER_ID: Final = 59

_NOT_APPENDED: Final = {
    10: Action.SPLIT,
    18: Action.SPLIT,
    19: Action.RETRY,
    TOPIC_AUTHORIZATION_FAILED: Action.RETRY,
    32: Action.CLOCK,
    43: Action.CODEC,
    44: Action.REFUSE,
    76: Action.CODEC,
    87: Action.REFUSE,
}
_NUMBERS: Final = {OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID}
# The leader moves, the topic is being created, a broker's disk failed, or a follower is late. Such an error passes
# within about a second, and the cluster's metadata shows the new state.
_OF_THE_LEADER: Final = {3, 5, 6, 7, 8, 9, 13, 19, 20, 56, 72, 74, 75, 80, 83, 100, 103, 108}

# REQUEST_TIMED_OUT and NOT_ENOUGH_REPLICAS_AFTER_APPEND: the leader has appended the batch, followers lack it.
_APPENDED: Final = {7, 20}

# Kafka's names for its error codes, in order, starting at -1.
_NAMES: Final = """
UNKNOWN_SERVER_ERROR NONE OFFSET_OUT_OF_RANGE CORRUPT_MESSAGE UNKNOWN_TOPIC_OR_PARTITION INVALID_FETCH_SIZE
LEADER_NOT_AVAILABLE NOT_LEADER_OR_FOLLOWER REQUEST_TIMED_OUT BROKER_NOT_AVAILABLE REPLICA_NOT_AVAILABLE
MESSAGE_TOO_LARGE STALE_CONTROLLER_EPOCH OFFSET_METADATA_TOO_LARGE NETWORK_EXCEPTION COORDINATOR_LOAD_IN_PROGRESS
COORDINATOR_NOT_AVAILABLE NOT_COORDINATOR INVALID_TOPIC_EXCEPTION RECORD_LIST_TOO_LARGE NOT_ENOUGH_REPLICAS
NOT_ENOUGH_REPLICAS_AFTER_APPEND INVALID_REQUIRED_ACKS ILLEGAL_GENERATION INCONSISTENT_GROUP_PROTOCOL INVALID_GROUP_ID
UNKNOWN_MEMBER_ID INVALID_SESSION_TIMEOUT REBALANCE_IN_PROGRESS INVALID_COMMIT_OFFSET_SIZE TOPIC_AUTHORIZATION_FAILED
GROUP_AUTHORIZATION_FAILED CLUSTER_AUTHORIZATION_FAILED INVALID_TIMESTAMP UNSUPPORTED_SASL_MECHANISM
ILLEGAL_SASL_STATE UNSUPPORTED_VERSION TOPIC_ALREADY_EXISTS INVALID_PARTITIONS INVALID_REPLICATION_FACTOR
INVALID_REPLICA_ASSIGNMENT INVALID_CONFIG NOT_CONTROLLER INVALID_REQUEST UNSUPPORTED_FOR_MESSAGE_FORMAT
POLICY_VIOLATION OUT_OF_ORDER_SEQUENCE_NUMBER DUPLICATE_SEQUENCE_NUMBER INVALID_PRODUCER_EPOCH INVALID_TXN_STATE
INVALID_PRODUCER_ID_MAPPING INVALID_TRANSACTION_TIMEOUT CONCURRENT_TRANSACTIONS TRANSACTION_COORDINATOR_FENCED
TRANSACTIONAL_ID_AUTHORIZATION_FAILED SECURITY_DISABLED OPERATION_NOT_ATTEMPTED KAFKA_STORAGE_ERROR LOG_DIR_NOT_FOUND
SASL_AUTHENTICATION_FAILED UNKNOWN_PRODUCER_ID REASSIGNMENT_IN_PROGRESS DELEGATION_TOKEN_AUTH_DISABLED
DELEGATION_TOKEN_NOT_FOUND DELEGATION_TOKEN_OWNER_MISMATCH DELEGATION_TOKEN_REQUEST_NOT_ALLOWED
DELEGATION_TOKEN_AUTHORIZATION_FAILED DELEGATION_TOKEN_EXPIRED INVALID_PRINCIPAL_TYPE NON_EMPTY_GROUP
GROUP_ID_NOT_FOUND FETCH_SESSION_ID_NOT_FOUND INVALID_FETCH_SESSION_EPOCH LISTENER_NOT_FOUND TOPIC_DELETION_DISABLED
FENCED_LEADER_EPOCH UNKNOWN_LEADER_EPOCH UNSUPPORTED_COMPRESSION_TYPE STALE_BROKER_EPOCH OFFSET_NOT_AVAILABLE
MEMBER_ID_REQUIRED PREFERRED_LEADER_NOT_AVAILABLE GROUP_MAX_SIZE_REACHED FENCED_INSTANCE_ID
ELIGIBLE_LEADERS_NOT_AVAILABLE ELECTION_NOT_NEEDED NO_REASSIGNMENT_IN_PROGRESS GROUP_SUBSCRIBED_TO_TOPIC
INVALID_RECORD UNSTABLE_OFFSET_COMMIT THROTTLING_QUOTA_EXCEEDED PRODUCER_FENCED RESOURCE_NOT_FOUND DUPLICATE_RESOURCE
UNACCEPTABLE_CREDENTIAL INCONSISTENT_VOTER_SET INVALID_UPDATE_VERSION FEATURE_UPDATE_FAILED
PRINCIPAL_DESERIALIZATION_FAILURE SNAPSHOT_NOT_FOUND POSITION_OUT_OF_RANGE UNKNOWN_TOPIC_ID
DUPLICATE_BROKER_REGISTRATION BROKER_ID_NOT_REGISTERED INCONSISTENT_TOPIC_ID INCONSISTENT_CLUSTER_ID
TRANSACTIONAL_ID_NOT_FOUND FETCH_SESSION_TOPIC_ID_ERROR INELIGIBLE_REPLICA NEW_LEADER_ELECTED
OFFSET_MOVED_TO_TIERED_STORAGE FENCED_MEMBER_EPOCH UNRELEASED_INSTANCE_ID UNSUPPORTED_ASSIGNOR STALE_MEMBER_EPOCH
MISMATCHED_ENDPOINT_TYPE UNSUPPORTED_ENDPOINT_TYPE UNKNOWN_CONTROLLER_ID UNKNOWN_SUBSCRIPTION_ID TELEMETRY_TOO_LARGE
INVALID_REGISTRATION TRANSACTION_ABORTABLE INVALID_RECORD_STATE SHARE_SESSION_NOT_FOUND INVALID_SHARE_SESSION_EPOCH
FENCED_STATE_EPOCH INVALID_VOTER_KEY DUPLICATE_VOTER VOTER_NOT_FOUND INVALID_REGULAR_EXPRESSION REBOOTSTRAP_REQUIRED
STREAMS_INVALID_TOPOLOGY STREAMS_INVALID_TOPOLOGY_EPOCH STREAMS_TOPOLOGY_FENCED SHARE_SESSION_LIMIT_REACHED
""".split()  # noqa: SIM905 - in this form it reads as a table
_FIRST_CODE: Final = -1


def code_name(code: int) -> str:
    """Kafka's name for an error code, followed by the number, for logs and metrics."""
    known = 0 <= code - _FIRST_CODE < len(_NAMES)
    return f"{_NAMES[code - _FIRST_CODE] if known else 'UNKNOWN'} ({code})"


class RecordError(NamedTuple):
    """A record that the broker names in its answer."""

    place: int
    """The record's place in the batch."""
    message: str


class ProduceError(NamedTuple):
    """Why a batch was not acknowledged: a broker answered with an error, or no answer came."""

    code: int | None
    """Kafka's error code; None if no answer came."""
    message: str = ""
    """The broker's message for the code; if there is no code, one word that says what happened."""
    records: Sequence[RecordError] = ()
    """The records that the broker names in its answer."""

    @property
    def name(self) -> str:
        """The error as a metric label: the code with its name, or one word that says why there was no answer."""
        return self.message if self.code is None else code_name(self.code)

    @property
    def text(self) -> str:
        """The error as a text for logs and for people."""
        return f"{self.name}: {self.message}" if self.code is not None and self.message else self.name

    @property
    def action(self) -> Action:
        """The action that the error calls for."""
        if self.code is None:
            return Action.RESEND
        return _NOT_APPENDED.get(self.code, Action.RENUMBER if self.code in _NUMBERS else Action.RESEND)

    @property
    def is_answer(self) -> bool:
        """Whether the error came in a broker's answer."""
        return self.code is not None

    @property
    def not_appended(self) -> bool:
        """Whether the answer says that this attempt appended nothing to the log."""
        return self.code in _NOT_APPENDED

    @property
    def appended(self) -> bool:
        """Whether the answer says that this attempt is in the leader's log."""
        return self.code in _APPENDED

    @property
    def of_the_leader(self) -> bool:
        """Whether the error passes once the partition has its leader and its replicas again."""
        return self.code is None or self.code in _OF_THE_LEADER


CLOSED: Final = ProduceError(None, "closed")
"""The connection was closed while the request was in flight."""
TIMED_OUT: Final = ProduceError(None, "timed_out")
"""No answer came in time.

Either the broker answers no other request, or it answers only others, or the longest wait has passed: see ``watch.py``.
"""
MOVED: Final = ProduceError(None, "leader_moved")
"""Another broker leads the partition now."""
UNREADABLE: Final = ProduceError(None, "unreadable_answer")
"""The bridge could not read the answer to the request."""
MISSING: Final = ProduceError(None, "missing_in_answer")
"""The answer does not mention the partition."""
NOT_SENT: Final = ProduceError(None, "not_sent")
"""In this attempt, the batch was not written to a connection."""
NOT_WRITTEN: Final = ProduceError(None, "not_written")
"""A fault in the bridge kept it from compressing the batch or from writing the request."""
