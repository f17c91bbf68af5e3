"""What the chart sees of a release that is there: a Kubernetes API that knows one StatefulSet, as Helm asks for it."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import helm

Object = dict[str, Any]
# What the chart says of these values beside that StatefulSet; nothing where it takes them.
Upgrade = Callable[[dict[str, Any]], str]

STATEFUL_SETS = {
    "name": "statefulsets",
    "singularName": "",
    "namespaced": True,
    "kind": "StatefulSet",
    "verbs": ["get"],
}
DISCOVERY: dict[str, Object] = {
    "/version": {"major": "1", "minor": "37", "gitVersion": f"v{helm.NEWEST}.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}]}],
    },
    "/apis/apps/v1": {"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": [STATEFUL_SETS]},
}


@pytest.fixture(scope="module")
def upgrade() -> Iterator[Upgrade]:
    """Over a release with the defaults."""
    (there,) = (each for each in helm.render({}) if each["kind"] == "StatefulSet")
    path = f"/apis/apps/v1/namespaces/{helm.NAMESPACE}/statefulsets/{there['metadata']['name']}"
    known = DISCOVERY | {path: there}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = known.get(self.path.partition("?")[0])
            body = json.dumps(
                found or {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
            ).encode()
            self.send_response(200 if found else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    asked = ("--dry-run=server", "--kube-apiserver", address, "--kube-token", "none")

    def run(values: dict[str, Any]) -> str:
        # Helm 3 has other flags; what Helm 4 sees, it sees too.
        done = helm.run(
            "template",
            helm.RELEASE,
            helm.CHART,
            *asked,
            values=helm.overlaid(helm.MINIMAL, values),
            program=helm.packaged(),
        )
        # What Helm itself says afterwards is of no interest: this API does not know the other kinds.
        return done.stderr.partition("these values can't be used:\n")[2]

    yield run
    server.shutdown()
    server.server_close()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"size": "24Gi"}, "spool.size: 24Gi is not that of StatefulSet release-chatapp-bridge, 12Gi"),
    "class": ({"storageClassName": "fast"}, "spool.storageClassName: fast is not that of StatefulSet"),
    "labels": (
        {"labels": {"a": "b"}},
        "spool.labels: the claims of StatefulSet release-chatapp-bridge have other labels",
    ),
    "annotations": ({"annotations": {"a": "b"}}, "spool.annotations: the claims of StatefulSet"),
}


@pytest.mark.parametrize(("spool", "words"), REFUSED.values(), ids=REFUSED)
def test_what_kubernetes_never_changes_is_refused_with_the_way_out(
    upgrade: Upgrade, spool: dict[str, Any], words: str
) -> None:
    """Before a hook has run: the API's own words would be `updates to statefulset spec ... are forbidden`."""
    said = upgrade({"spool": spool})
    assert words in said
    assert "delete statefulset release-chatapp-bridge --cascade=orphan" in said


def test_what_it_lets_change_is_taken(upgrade: Upgrade) -> None:
    """The same volumes written in another way, and the retention of the claims."""
    for spool in ({}, {"size": "12288Mi"}, {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}):
        assert upgrade({"spool": spool, "replicas": 3}) == ""
