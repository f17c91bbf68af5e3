"""The answers of the public port, as ASGI messages."""

from http import HTTPStatus
from typing import Any, Final, TypeAlias

import msgspec

Answer: TypeAlias = tuple[dict[str, Any], dict[str, Any]]
"""The two messages: start and body."""


def json_answer(status: int, message: str, *, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    """An answer in the shape of the success; errors too: ``{"code":…,"msg":…}``."""
    return answer(status, {"code": 0 if status == HTTPStatus.OK else status, "msg": message}, headers)


def answer(status: int, content: dict[str, Any], headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    """An answer with JSON."""
    body = msgspec.json.encode(content)
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [*headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))],
    }
    return start, {"type": "http.response.body", "body": body, "more_body": False}


CLOSE: Final = ((b"connection", b"close"),)
SUCCESS: Final = json_answer(200, "Success")
# Closes the connection, as the server would otherwise do so or not, by how much of the body it has.
NOT_FOUND: Final = json_answer(404, "Not Found", headers=CLOSE)
NOT_ALLOWED: Final = json_answer(405, "Method Not Allowed", headers=((b"allow", b"POST"),))
# A client that closed only its own direction reads this. Without an answer the server would make one up.
CUT_SHORT: Final = json_answer(408, "the body was cut short", headers=CLOSE)


def too_many(retry_after_seconds: int) -> Answer:
    """429: more requests than a rate allows."""
    retry = (b"retry-after", b"%d" % retry_after_seconds)
    return json_answer(429, "Too Many Requests", headers=(retry, *CLOSE))
