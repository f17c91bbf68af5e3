"""The event's identity and rank."""

import hashlib
import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.report.event import StatusEvent, event_id
from bridge.report.symbols import Status, status_of, status_rank


def by_hand(*texts: str) -> str:
    """The id as its definition says it, without the code under test."""
    packed = b"".join(struct.pack(">I", len(text.encode())) + text.encode() for text in texts)
    return hashlib.sha256(packed).digest()[:16].hex()


@pytest.mark.parametrize(
    ("expected", "message_id", "recipient", "status", "error_code"),
    [
        ("7df409b4c3657db512994c322c6e110e", "m-1", "15550000001", "Delivered", None),
        ("7df409b4c3657db512994c322c6e110e", "m-1", "15550000001", " DELIVERED ", ""),
        ("80e4d4569f5b1a4ec6c05ca1457fbcf4", "2023078469463703*******3", "86138*******8", "Failed", "131026"),
        ("fc695900009394ba34c77106b77e0dab", "é", None, "Read", None),
    ],
)
def test_known_facts_have_their_published_ids(
    expected: str, message_id: str, recipient: str | None, status: str, error_code: str | None
) -> None:
    """Literal vectors: another implementation can be checked against them."""
    assert expected == event_id(message_id, recipient, status, error_code)


@settings(deadline=None)
@given(st.text(min_size=1), st.text(), st.text(), st.text())
def test_the_id_is_the_defined_hash(message_id: str, recipient: str, status: str, error_code: str) -> None:
    """For any four texts, computed by hand."""
    expected = by_hand(message_id, recipient, status.strip().casefold(), error_code.strip())
    assert expected == event_id(message_id, recipient, status, error_code)


def test_texts_that_join_alike_have_different_ids() -> None:
    """The lengths keep the four texts apart."""
    assert event_id("ab", "c", "Read", None) != event_id("a", "bc", "Read", None)
    assert event_id("a", None, "Read", "1") != event_id("a", "1", "Read", None)


@pytest.mark.parametrize(
    ("text", "status", "rank"),
    [
        ("Sent", Status.SENT, 1),
        ("delivered", Status.DELIVERED, 2),
        (" READ\n", Status.READ, 3),
        ("Failed", Status.FAILED, 0),
        ("Deleted", Status.DELETED, 0),
        ("played", Status.UNKNOWN, 0),
        ("BridgeTest", Status.UNKNOWN, 0),
        ("Unknown", Status.UNKNOWN, 0),
        ("", Status.UNKNOWN, 0),
    ],
)
def test_a_status_is_trimmed_and_folded_and_ranked(text: str, status: Status, rank: int) -> None:
    """Anything new is UNKNOWN; only sent, delivered and read are on the ladder."""
    assert (status, rank) == (status_of(text), status_rank(status_of(text)))


def test_an_event_cannot_be_changed() -> None:
    """What was read is what is published."""
    assert StatusEvent.__struct_config__.frozen
    assert issubclass(StatusEvent, msgspec.Struct)
