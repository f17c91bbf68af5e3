"""Of a person nothing is shown that was not asked for."""

import json

import pytest

from bridge.operate.masking import masked, masked_line


def line(**fields: object) -> bytes:
    """A line as replay writes them."""
    return json.dumps(
        {"topic": "t", "partition": 0, "offset": 7, "key": "m-1", "headers": {}, "value": None, **fields}
    ).encode()


def test_of_an_event_the_fields_about_people_are_masked_and_no_others() -> None:
    """Ids, times and codes are what one looks for; free text may hold numbers."""
    event = {
        "event_id": "8109e47aee57b0e0914c3d0c2227b9f6",
        "message_id": "20230784694637030000003",
        "recipient": "8613800000002",
        "sender": None,
        "user_name": "Somebody",
        "received_at": 1691043638000,
        "error_code": "131026",
        "error_description": "131026: 8613800000002 can't be reached",
        "extras": '{"Other":"8613800000002"}',
    }
    shown = json.loads(masked_line(line(value=event)))["value"]
    assert shown == event | {
        "recipient": "8**********02",
        "user_name": "S*****dy",
        "error_description": "1***26: 8**********02 can't be reached",
        "extras": '{"Other":"8**********02"}',
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"value": {"To": "8613800000002", "From": 8613800000002, "x": [{"8613800000002": True}]}},
        {"value_text": "[{8613800000002"},
        {"value_base64": "ODYxMzgwMDAwMDAwMg=="},
        {"headers_exact": [["x", "ODYxMzgwMDAwMDAwMg=="]]},
    ],
)
def test_of_anything_else_no_number_is_left(fields: dict[str, object]) -> None:
    """Whatever bytes were quarantined."""
    shown = masked_line(line(**fields))
    assert b"8613800000002" not in shown
    assert b"ODYxMzgw" not in shown
    assert json.loads(shown)["offset"] == 7


@pytest.mark.parametrize(
    "value",
    ['[1e999, "8613800000002"]', "[" * 100 + "8613800000002" + "]" * 100, "[" * 900 + "8613800000002" + "]" * 900],
    ids=["range", "depth", "depth-of-the-decoder"],
)
def test_what_can_not_be_looked_into_is_not_shown(value: str) -> None:
    """JSON all the same: a number that no machine has, or nested deeper than can be followed."""
    shown = json.loads(masked_line(line(value="here").replace(b'"here"', value.encode())))
    assert shown == json.loads(line()) | {"value_masked": len(value)}


def test_a_short_one_is_hidden_whole() -> None:
    """Three characters would be all of it."""
    assert [masked(text) for text in ("", "123", "1234")] == ["***", "***", "1*34"]
