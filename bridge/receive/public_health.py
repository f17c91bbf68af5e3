"""The path that load balancers ask on the public port: ready or not, and nothing else."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from bridge.receive.answers import answer, json_answer

_READY: Final = answer(200, {"status": "ready"})
_NOT_READY: Final = answer(503, {"status": "not ready"})
_NOT_ALLOWED: Final = json_answer(405, "Method Not Allowed", headers=((b"allow", b"GET, HEAD"),))


class PublicHealth:
    """An ASGI application for one path.

    Args:
        path: ``server.health_path``; empty: none.
        ready: whether a callback could be stored durably now.
    """

    def __init__(self, path: str, ready: Callable[[], bool]) -> None:
        self.path = path or None
        self._ready = ready

    async def __call__(self, scope: dict[str, Any], send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        """Answer one request."""
        if scope["method"] in {"GET", "HEAD"}:
            start, body = _READY if self._ready() else _NOT_READY
        else:
            start, body = _NOT_ALLOWED
        await send(start)
        await send(body)
