"""Who may push: whoever holds a secret of the callback address, and nobody else."""

import pytest

from bridge.receive.access import Access

SECRET, OTHER = "a-secret-of-the-tests-1", "another-secret-of-tests"


@pytest.mark.parametrize("rest", [f"/{SECRET}", f"/{OTHER}", f"/{SECRET}/", f"/{OTHER}/"])
def test_each_secret_in_force_admits(rest: str) -> None:
    """Two secrets are valid at once, each with or without a final slash."""
    assert Access([SECRET, OTHER]).admits(rest)


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "/",
        SECRET,
        f"/{SECRET[:-1]}",
        f"/{SECRET}x",
        f"/{SECRET.upper()}",
        f"/{SECRET}/x",
        f"/x/{SECRET}",
        f"/{SECRET}/{OTHER}",
        f"//{SECRET}",
        f"/{SECRET}//",
        f"/ {SECRET}",
        f"/{SECRET}\x00",
        f"/{SECRET}é",
        "/\udcff",
    ],
)
def test_nothing_else_admits(rest: str) -> None:
    """Part of a secret, more than it, another case, further segments, text that can't be encoded: none of them."""
    assert not Access([SECRET, OTHER]).admits(rest)


def test_a_bridge_that_runs_open_takes_the_bare_path_only() -> None:
    """Without secrets the address ends at /status: what was once a secret's address is no callback's any more."""
    access = Access([])

    assert access.open
    assert [access.admits(rest) for rest in ("", "/", "/x", f"/{SECRET}")] == [True, True, False, False]


def test_a_bridge_with_a_secret_is_not_open() -> None:
    """The bare path admits nobody."""
    access = Access([SECRET])

    assert not access.open
    assert not access.admits("")
