"""The Litestar application of the admin port: how the bridge is, for operators and their tools."""

from litestar import Litestar
from litestar.datastructures import State

from bridge.health.probes import Probes
from bridge.receive.app import make_app


def admin_app(probes: Probes) -> Litestar:
    """The application of the admin port."""
    return make_app(Litestar, *probes.handlers(), state=State({"probes": probes}))
