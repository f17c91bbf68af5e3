"""The Litestar application of the public port: it takes callbacks and nothing else."""

from typing import Any

import structlog
from litestar import Litestar, Request, Response, asgi
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from bridge.receive.callbacks import Callbacks

log = structlog.get_logger(__name__)

CALLBACK_PATH = "/callbacks/chatapp/status"


_MOUNT = CALLBACK_PATH + "/"


class _Public(Litestar):
    """Takes callbacks past the router and its layers of middleware, which cost more than the handler; see docs/performance.md."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if path.startswith(_MOUNT) and "//" not in path:  # of these the router makes one
            scope["path"] = path[len(CALLBACK_PATH) :]
            await self.state["callbacks"](scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def public_app(callbacks: Callbacks) -> Litestar:
    """The application of the public port: one path, no schema, no documentation."""

    # An ASGI route, as the handler reads the body itself, by its limits. A mount, since Litestar (2.25) gives an ASGI route no
    # path parameters: the handler gets what follows the path.
    @asgi(CALLBACK_PATH, is_mount=True, copy_scope=False)
    async def callback(scope: Any, receive: Any, send: Any) -> None:
        await callbacks(scope, receive, send)

    return make_app(_Public, callback, state=State({"callbacks": callbacks}))


def make_app(kind: type[Litestar], *handlers: Any, state: State) -> Litestar:
    """An application with the handlers, whose errors have the shape of the callbacks' answers."""
    return kind(
        route_handlers=list(handlers),
        openapi_config=None,
        exception_handlers={HTTPException: _on_http_exception, Exception: _on_fault},
        logging_config=None,
        debug=False,
        state=state,
    )


def _on_fault(_request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """A fault of the bridge itself: the provider pushes the callback again."""
    log.error("request_failed", exc_info=error)
    return Response({"code": 503, "msg": "Service Unavailable"}, status_code=503, media_type="application/json")


def _on_http_exception(_request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """Errors of the routing, in the shape of the handler's own; 404 is the same to the byte wherever it comes from."""
    message = {404: "Not Found", 405: "Method Not Allowed"}.get(error.status_code, "Bad Request")
    headers = {"allow": error.headers["allow"]} if error.headers and "allow" in error.headers else {}
    if error.status_code == 404:  # noqa: PLR2004 - as it is known
        headers["connection"] = "close"
    return Response(
        {"code": error.status_code, "msg": message},
        status_code=error.status_code,
        media_type="application/json",
        headers=headers,
    )
