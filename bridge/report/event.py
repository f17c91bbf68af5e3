"""What is published for one status report, and the id that is the same however often the report arrives."""

from hashlib import sha256
from typing import Final

from bridge.report.generated import EventFields
from bridge.report.symbols import Status

_TEST_STATUS: Final = "bridgetest"


class StatusEvent(EventFields, frozen=True, gc=False, kw_only=True):
    """One status report, flat. Times are milliseconds since the epoch; what did not arrive is None."""

    @property
    def is_delivered(self) -> bool:
        """Whether the message has reached its recipient: at DELIVERED or READ, since DELIVERED may never come."""
        return self.status is Status.DELIVERED or self.status is Status.READ

    @property
    def is_test(self) -> bool:
        """Whether it is a check of a live deployment, which no consumer counts."""
        return self.provider_status.strip().casefold() == _TEST_STATUS


def event_id(message_id: str, recipient: str | None, status: str, wire_error_code: str | None) -> str:
    """The id of a fact: the same for every repeat, on every replica.

    The first 16 bytes, as 32 lower-case hex digits, of SHA-256 over four texts, each as its length in UTF-8
    bytes (4 bytes, big endian) and its bytes. The lengths keep ("ab", "c") and ("a", "bc") apart.

    Args:
        message_id: MessageId.
        recipient: To, else the user id (UserId, else FromUserId), else None or empty.
        status: Status as the provider wrote it; it is trimmed and case folded here.
        wire_error_code: ErrorCode, else Error, as it came, whatever it means; it is trimmed here. None or empty where neither
            came. Never what was inferred: that may change with the catalogue, and the id may not.
    """
    message = message_id.encode()
    to = recipient.encode() if recipient else b""
    state = status.strip().casefold().encode()
    code = wire_error_code.strip().encode() if wire_error_code else b""
    return sha256(
        b"".join(
            (
                len(message).to_bytes(4, "big"),
                message,
                len(to).to_bytes(4, "big"),
                to,
                len(state).to_bytes(4, "big"),
                state,
                len(code).to_bytes(4, "big"),
                code,
            )
        )
    ).hexdigest()[:32]
