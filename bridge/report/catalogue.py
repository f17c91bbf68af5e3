"""What an error code means, so that alerting and billing need no table of their own.

The codes are those of WhatsApp's Cloud API, as the provider passes them on. A code that is not here is
UNKNOWN: new codes appear without notice, and the provider's own (SRVC_…) are not documented.
"""

from typing import Final, NamedTuple

from bridge.report.symbols import ErrorCategory, ErrorRetry


class ErrorMeaning(NamedTuple):
    """The category of an error code, and whether sending again can help."""

    category: ErrorCategory
    retry: ErrorRetry


NO_ERROR: Final = ErrorMeaning(ErrorCategory.NONE, ErrorRetry.NONE)
UNKNOWN_ERROR: Final = ErrorMeaning(ErrorCategory.UNKNOWN, ErrorRetry.UNKNOWN)

_TABLE: Final[tuple[tuple[str, ErrorCategory, ErrorRetry], ...]] = (
    ("131026", ErrorCategory.UNDELIVERABLE, ErrorRetry.NO),
    ("131047", ErrorCategory.RE_ENGAGEMENT, ErrorRetry.NO),  # only a template may be sent
    ("131049", ErrorCategory.ECOSYSTEM_LIMIT, ErrorRetry.LATER),  # wait a day
    ("131050", ErrorCategory.OPT_OUT, ErrorRetry.NO),  # suppress the recipient
    ("131048", ErrorCategory.SPAM_LIMIT, ErrorRetry.LATER),  # pause
    ("131056 130429 4 80007", ErrorCategory.RATE_LIMIT, ErrorRetry.LATER),
    ("131042", ErrorCategory.PAYMENT, ErrorRetry.NO),
    ("368 131031", ErrorCategory.POLICY, ErrorRetry.NO),
    ("132000 132001 132005 132007 132012 132016", ErrorCategory.TEMPLATE, ErrorRetry.NO),
    ("132015", ErrorCategory.TEMPLATE, ErrorRetry.LATER),  # paused
    ("131051 131052 131053", ErrorCategory.MEDIA, ErrorRetry.NO),
    ("3 10 131005 131030", ErrorCategory.PERMISSION, ErrorRetry.NO),
    (" ".join(str(code) for code in range(200, 300)), ErrorCategory.PERMISSION, ErrorRetry.NO),
    ("190 131045 33 137000", ErrorCategory.ACCOUNT, ErrorRetry.NO),  # token, certificate, number, identity
    ("131043", ErrorCategory.EXPIRED, ErrorRetry.NO),
    ("1 2 131000 131016 133004", ErrorCategory.TRANSIENT, ErrorRetry.LATER),
    ("130472", ErrorCategory.UNKNOWN, ErrorRetry.UNKNOWN),  # the recipient is part of an experiment
)

_MEANINGS: Final = {code: ErrorMeaning(category, retry) for codes, category, retry in _TABLE for code in codes.split()}


def error_meaning(error_code: str | None) -> ErrorMeaning:
    """What an error code means: NONE, NONE for None, UNKNOWN, UNKNOWN for a code that is not in the table."""
    if error_code is None:
        return NO_ERROR
    return _MEANINGS.get(error_code.strip(), UNKNOWN_ERROR)


class Catalogue:
    def meaning(self, code: str | None) -> ErrorMeaning:
        return error_meaning(code)

    def __contains__(self, code: str) -> bool:
        return code in _MEANINGS


_SHIPPED = Catalogue()


def shipped_catalogue() -> Catalogue:
    return _SHIPPED
