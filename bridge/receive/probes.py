"""The admin port: liveness, readiness, metrics.

Live: the loop turns. Ready: a callback could be stored durably now. Kafka's absence alone makes it neither dead nor, where
there is a spool, unready.
"""

from collections.abc import Callable
from typing import Any

from litestar import Response, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from bridge.observe.metrics import Measurements


class Probes:
    """What the admin port answers.

    Args:
        measurements: for ``/metrics``.
        ready: whether a callback could be stored durably now.
    """

    def __init__(self, measurements: Measurements, ready: Callable[[], bool]) -> None:
        self._measurements = measurements
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
        def metrics() -> Response[bytes]:
            return Response(generate_latest(self._measurements.registry), media_type=CONTENT_TYPE_LATEST)

        return [livez, readyz, metrics]
