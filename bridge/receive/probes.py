"""The admin port: liveness, readiness, metrics.

Live: the loop turns. Ready: a callback could be stored durably now. Kafka's absence alone makes it neither dead nor, where
there is a spool, unready.
"""

from collections.abc import Callable
from typing import Any

from litestar import Request, Response, get

from bridge.observe.metrics import Metrics


class Probes:
    """What the admin port answers.

    Args:
        metrics: for ``/metrics``.
        ready: whether a callback could be stored durably now.
    """

    def __init__(self, metrics: Metrics, ready: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._ready = ready

    def handlers(self) -> list[Any]:
        """Litestar's handlers of the three paths."""

        @get("/livez", sync_to_thread=False)
        def livez() -> dict[str, str]:
            return {"status": "live"}

        @get("/readyz", sync_to_thread=False)
        def readyz() -> Response[dict[str, str]]:
            if self._ready():
                return Response({"status": "ready"})
            return Response({"status": "not ready: a callback could not be stored durably now"}, status_code=503)

        @get("/metrics", sync_to_thread=False)
        def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
            body, content_type = self._metrics.exposition(request.headers.get("accept", ""))
            return Response(body, media_type=content_type)

        return [livez, readyz, metrics]
