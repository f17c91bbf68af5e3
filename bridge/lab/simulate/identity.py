"""The event id, as the contract words it.

It is the service's rule implemented a second time on purpose: if both came from one function, a mistake in it
could not be found by comparing them.
"""

import hashlib

_LENGTH_BYTES = 4
_ID_BYTES = 16


def event_id(message_id: str, recipient: str, status: str, wire_error_code: str | None) -> str:
    """The id of one fact: 32 lower-case hex digits.

    ``recipient`` is To, else UserId or FromUserId, else empty; ``status`` as it was sent (it is trimmed and case
    folded here); ``wire_error_code`` is ErrorCode, else Error, as it was sent, whatever it means (it is trimmed
    here), None where neither was. SHA-256 over the four texts, each preceded by its length in UTF-8 bytes (4 bytes,
    big endian), of which the first 16 bytes count.
    """
    digest = hashlib.sha256()
    for text in (message_id, recipient, status.strip().casefold(), (wire_error_code or "").strip()):
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(_LENGTH_BYTES, "big") + encoded)
    return digest.digest()[:_ID_BYTES].hex()


def raw_sha256(raw: bytes) -> str:
    """What a quarantined record is recognised by: the SHA-256 of its value, in hex."""
    return hashlib.sha256(raw).hexdigest()
