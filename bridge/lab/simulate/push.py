"""What is pushed, and what has to be known of it to check what became of it."""

import msgspec


class Report(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One item of a push: a delivery report, or something that has to be quarantined.

    ``message_id``, ``recipient`` and ``status`` (trimmed) stand as they were sent, empty where the item has
    none. Exactly one of ``event_id`` (it has to become that event) and ``raw_sha256`` (its raw bytes have to
    be quarantined; the hash in hex) is set. ``wire_error_code`` is the error code as it was sent, None where none
    was. ``recipient`` is To, or the user id where the item has no To; ``user_id`` is empty without one.
    """

    message_id: str
    recipient: str
    status: str
    wire_error_code: str | None
    event_id: str | None
    raw_sha256: str | None = None
    user_id: str = ""

    @property
    def to(self) -> str:
        """To, empty where the item has none."""
        return "" if self.recipient == self.user_id else self.recipient

    @property
    def quarantined(self) -> bool:
        """Whether it is expected on the quarantine topic."""
        return self.event_id is None


class Push(msgspec.Struct, frozen=True):
    """One callback: its body, the same bytes at every attempt, and the reports inside, in their order.

    ``number`` counts from 0 within a campaign. ``at_seconds`` is when it is meant to be sent, counted from
    the start of the run; None means as soon as a connection is free.
    """

    number: int
    at_seconds: float | None
    body: bytes
    reports: tuple[Report, ...]

    @property
    def keys(self) -> frozenset[str]:
        """The message ids of the events inside: the Kafka keys that their order is promised for."""
        return frozenset(report.message_id for report in self.reports if report.event_id is not None)
