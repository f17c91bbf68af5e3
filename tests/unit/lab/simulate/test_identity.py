"""The simulator's own event id follows the published rule."""

import pytest

from bridge.lab.simulate.identity import event_id, raw_sha256


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        # printf '\0\0\0\0031-a\0\0\0\00212\0\0\0\006failed\0\0\0\006131026' | sha256sum | cut -c-32
        (("1-a", "12", "Failed", "131026"), "1ca7140c803282015e452d8cf2b0b7a3"),
        (("1-a", "", "Sent", None), "33293cbb57eb0efa2fd9f456551ce57a"),
        (("消", "", "READ", None), "e19051358dab1635a43bcf6ff4e25e82"),
    ],
)
def test_it_is_what_another_program_computes(facts: tuple[str, str, str, str | None], expected: str) -> None:
    """The rule applied by hand with printf and sha256sum gives the same id, lengths counted in bytes."""
    assert expected == event_id(*facts)


def test_the_status_counts_trimmed_and_folded() -> None:
    """How a status is spelled does not change the fact."""
    assert event_id("1", "2", "Read", None) == event_id("1", "2", "  rEAD\t", None)


def test_where_a_text_ends_counts() -> None:
    """Two facts whose texts run together to the same bytes differ: that is what the lengths are for."""
    assert event_id("12", "3", "Sent", None) != event_id("1", "23", "Sent", None)


def test_raw_bytes_are_hashed_as_they_came() -> None:
    """The hash of nothing is SHA-256's well-known one."""
    assert raw_sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
