"""The Litestar application of the public port: it takes callbacks and nothing else."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import structlog
from litestar import Litestar, Request, Response, asgi
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from bridge.config import CALLBACK_PATH
from bridge.receive.answers import NOT_FOUND, Answer, json_answer
from bridge.receive.callbacks import Callbacks
from bridge.receive.public_health import PublicHealth

log = structlog.get_logger(__name__)

_MOUNT = CALLBACK_PATH + "/"


class _Public(Litestar):
    """Takes callbacks past the router and its layers of middleware, which cost more than the handler; see docs/performance.md."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if path.startswith(_MOUNT) and "//" not in path:  # of these the router makes one
            scope["path"] = path[len(CALLBACK_PATH) :]
            await self.state["callbacks"](scope, receive, send)
        elif path == self.state["health"].path:
            await self.state["health"](scope, send)
        else:
            await super().__call__(scope, receive, send)


def public_app(callbacks: Callbacks, health: PublicHealth) -> Litestar:
    """The application of the public port: one path and that of the health checks, no schema, no documentation."""

    # An ASGI route, as the handler reads the body itself, by its limits. A mount, since Litestar (2.25) gives an ASGI route no
    # path parameters: the handler gets what follows the path.
    @asgi(CALLBACK_PATH, is_mount=True, copy_scope=False)
    async def callback(scope: Any, receive: Any, send: Any) -> None:
        await callbacks(scope, receive, send)

    def not_found(request: Request[Any, Any, Any]) -> Answer:
        return callbacks.gate.unknown(dict(request.scope))

    state = State({"callbacks": callbacks, "health": health})
    return make_app(_Public, callback, state=state, not_found=not_found)


def make_app(
    kind: type[Litestar],
    *handlers: Any,
    state: State,
    not_found: Callable[[Request[Any, Any, Any]], Answer] = lambda _request: NOT_FOUND,
) -> Litestar:
    """An application with the handlers, whose errors have the shape of the callbacks' answers.

    Args:
        kind: its class.
        handlers: its routes.
        state: its state.
        not_found: gives the answer to a path that there is not.
    """

    def on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
        """Errors of the routing, in the shape of the handler's own; 404 is the same to the byte wherever it comes from."""
        if error.status_code == HTTPStatus.NOT_FOUND:
            return _response(not_found(request))
        message = {405: "Method Not Allowed"}.get(error.status_code, "Bad Request")
        headers = ((b"allow", error.headers["allow"].encode()),) if error.headers and "allow" in error.headers else ()
        return _response(json_answer(error.status_code, message, headers=headers))

    return kind(
        route_handlers=list(handlers),
        openapi_config=None,
        exception_handlers={HTTPException: on_http_exception, Exception: _on_fault},
        logging_config=None,
        debug=False,
        state=state,
    )


def _on_fault(_request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """A fault of the bridge itself: the provider pushes the callback again."""
    log.error("request_failed", exc_info=error)
    return _response(json_answer(503, "Service Unavailable"))


def _response(answer: Answer) -> Response[Any]:
    start, body = answer
    # Litestar adds the type and the length itself.
    headers = {name.decode(): value.decode() for name, value in start["headers"] if not name.startswith(b"content-")}
    return Response(body["body"], status_code=start["status"], media_type="application/json", headers=headers)
