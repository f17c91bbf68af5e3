"""The admin port: liveness, readiness, metrics, and how things are, for a person or a program.

Live: the loop turns. Ready: a callback could be stored durably now. Kafka's absence alone makes it neither dead nor, where
there is a spool, unready.
"""

from collections.abc import Callable
from typing import Any

from litestar import Request, Response, get

from bridge.health.page import Page
from bridge.health.verdict import HealthReport
from bridge.observe.metrics import Metrics


class Probes:
    """What the admin port answers.

    Args:
        metrics: for ``/metrics``.
        report: for ``/`` and ``/status.json``.
        ready: whether a callback could be stored durably now.
    """

    def __init__(self, metrics: Metrics, report: HealthReport, ready: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._report = report
        self._page = Page()
        self._ready = ready

    def handlers(self) -> list[Any]:
        """Litestar's handlers, one a path."""

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
            # As a header: to a media type of text Litestar adds the charset that it names already.
            return Response(body, headers={"content-type": content_type})

        @get("/status.json", sync_to_thread=False)
        def status() -> Response[dict[str, Any]]:
            return Response(self._report.read(), headers={"cache-control": "no-store"})

        @get("/", sync_to_thread=False)
        def page() -> Response[bytes]:
            return Response(self._page.body, media_type="text/html", headers=self._page.headers)

        return [livez, readyz, metrics, status, page]
