"""The Litestar application of the admin port: how the bridge is, for operators and their tools."""

from typing import Any, Final

from litestar import Litestar
from litestar.datastructures import State

from bridge.health.probes import Probes
from bridge.health.tokens import AdminTokens
from bridge.receive.answers import CLOSE, json_answer
from bridge.receive.app import make_app

# Kubernetes can't send a token from a Secret in a probe; these two say nothing but their status.
_OPEN: Final = frozenset({"/livez", "/readyz"})
# Two lines: Basic is for browsers, which can't send a bearer token by themselves.
_CHALLENGES: Final = tuple(
    (b"www-authenticate", b'%b realm="chatapp-bridge"' % scheme) for scheme in (b"Bearer", b"Basic")
)
_UNAUTHORIZED: Final = json_answer(401, "Unauthorized", headers=(*_CHALLENGES, *CLOSE))


class _Admin(Litestar):
    """Asks for a token before anything else, where one is set."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] in _OPEN or self.state["tokens"].admit(scope["headers"]):
            await super().__call__(scope, receive, send)
            return
        for message in _UNAUTHORIZED:
            await send(message)


def admin_app(probes: Probes, tokens: AdminTokens) -> Litestar:
    """The application of the admin port."""
    return make_app(_Admin, *probes.handlers(), state=State({"probes": probes, "tokens": tokens}))
