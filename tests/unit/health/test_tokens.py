"""Who may ask the admin port: whoever has a token, as a bearer or as a browser's password."""

import base64

import pytest

from bridge.health.tokens import AdminTokens

TOKEN, OTHER = "a-token-of-the-tests-1", "another+token/of-tests=="


def basic(text: str) -> str:
    """As a browser sends a user name and a password."""
    return "Basic " + base64.b64encode(text.encode()).decode()


def admits(*values: str, tokens: tuple[str, ...] = (TOKEN, OTHER)) -> bool:
    """Of a request with these Authorization headers."""
    return AdminTokens(tokens).admit([(b"host", b"x"), *((b"authorization", value.encode()) for value in values)])


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {TOKEN}",
        f"bearer  {TOKEN}",
        f"Bearer {OTHER}",
        basic(f":{TOKEN}"),
        basic(f"anybody:{TOKEN}"),
        basic(f"x:{OTHER}").replace("Basic", "BASIC"),
    ],
)
def test_a_token_in_force_is_taken(value: str) -> None:
    """Two are in force at once, so that one can replace the other."""
    assert admits(value)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        [TOKEN],
        [f"Bearer {TOKEN[:-1]}"],
        [f"Bearer {TOKEN}x"],
        [f"Bearer {TOKEN} {OTHER}"],
        [f"Digest {TOKEN}"],
        ["Basic"],
        ["Basic x"],
        ["Basic \xe9"],
        [basic(TOKEN)],
        [basic(f"{TOKEN}:")],
        [basic(f"x:{TOKEN}:")],
        [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
    ],
)
def test_nothing_else_is(values: list[str]) -> None:
    """No header, two of them, another scheme, a part of a token, what is no base64."""
    assert not admits(*values)


def test_without_tokens_nobody_is_asked() -> None:
    """The default."""
    assert admits(tokens=())
    assert admits("Bearer x", tokens=())


def test_a_replaced_token_is_not_taken_any_more() -> None:
    """The new ones alone are in force."""
    tokens = AdminTokens([TOKEN])
    tokens.replace([OTHER])
    found = [tokens.admit([(b"authorization", f"Bearer {token}".encode())]) for token in (TOKEN, OTHER)]
    assert found == [False, True]
