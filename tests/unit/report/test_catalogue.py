"""The catalogue says what the table of error codes says."""

import pytest

from bridge.report.catalogue import error_meaning

TABLE = [
    ("131026", "UNDELIVERABLE", "NO"),
    ("131047", "RE_ENGAGEMENT", "NO"),
    ("131049", "ECOSYSTEM_LIMIT", "LATER"),
    ("131050", "OPT_OUT", "NO"),
    ("131048", "SPAM_LIMIT", "LATER"),
    ("131056", "RATE_LIMIT", "LATER"),
    ("130429", "RATE_LIMIT", "LATER"),
    ("4", "RATE_LIMIT", "LATER"),
    ("80007", "RATE_LIMIT", "LATER"),
    ("131042", "PAYMENT", "NO"),
    ("368", "POLICY", "NO"),
    ("131031", "POLICY", "NO"),
    *((code, "TEMPLATE", "NO") for code in ("132000", "132001", "132005", "132007", "132012", "132016")),
    ("132015", "TEMPLATE", "LATER"),
    *((code, "MEDIA", "NO") for code in ("131051", "131052", "131053")),
    *((code, "PERMISSION", "NO") for code in ("3", "10", "200", "250", "299", "131005", "131030")),
    *((code, "ACCOUNT", "NO") for code in ("190", "131045", "33", "137000")),
    ("131043", "EXPIRED", "NO"),
    *((code, "TRANSIENT", "LATER") for code in ("1", "2", "131000", "131016", "133004")),
    *((code, "UNKNOWN", "UNKNOWN") for code in ("130472", "SRVC_TIMEOUT", "OUT_OF_SERVICE", "199", "300", "0200")),
    (None, "NONE", "NONE"),
]


@pytest.mark.parametrize(("code", "category", "retry"), TABLE)
def test_a_code_means_what_the_table_says(code: str | None, category: str, retry: str) -> None:
    """Each code of the table, the edges of its range, and codes outside it."""
    assert (category, retry) == tuple(error_meaning(code))


def test_white_space_around_a_code_changes_nothing() -> None:
    """The code itself is published as it came; only the look-up trims it."""
    assert error_meaning("131026") == error_meaning(" 131026 ")
