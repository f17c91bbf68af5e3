"""``docs/openapi.yaml`` is valid, names every route that the code has, and is what a real bridge does under schemathesis."""

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jsonschema
import pytest
import schemathesis
import yaml
from hypothesis import given
from litestar import Litestar
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection
from support.apart import run_apart, running_apart
from support.bridge_process import SECRET, BridgeProcess
from support.callbacks import make_topics
from support.fuzzing import DECODER_SHARE, few_or_many, while_budget_lasts
from support.raw_http import exchange, request

from bridge.config import CALLBACK_PATH
from bridge.health.app import admin_app
from bridge.health.probes import Probes
from bridge.health.tokens import AdminTokens
from bridge.receive.app import public_app

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text())
CALLBACK = f"{CALLBACK_PATH}/{{secret}}"
HEALTH = "/healthz"
PUBLIC = {CALLBACK, HEALTH}
# The admin port takes nothing that could be wrong.
OPERATIONS = [(CALLBACK, GenerationMode.NEGATIVE), *((path, GenerationMode.POSITIVE) for path in DOCUMENT["paths"])]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@pytest.fixture(scope="module")
def bridge(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    """One with a spool."""
    settings = {"log.level": "info"}
    process = BridgeProcess(
        kafka_bootstrap, tmp_path_factory.mktemp("bridge"), settings, run_apart(make_topics(kafka_bootstrap))
    )
    with running_apart(process, "_failed"):
        yield process


def routes(app: Litestar) -> set[str]:
    """Every path that an application has."""
    return {route.path for route in app.routes}


def test_the_document_is_valid() -> None:
    """By OpenAPI 3.1's schema, and each JSON Schema in it by its own."""
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_a_broken_document_is_not_valid() -> None:
    """The validator sees something."""
    broken = copy.deepcopy(DOCUMENT)
    del broken["paths"]["/livez"]["get"]["responses"]["200"]["description"]
    with pytest.raises(Exception, match="description"):
        schemathesis.openapi.from_dict(broken).validate()


def test_document_and_code_have_the_same_routes() -> None:
    """In both directions, each on its port."""
    ports: dict[bool, set[str]] = {True: set(), False: set()}
    for path, described in DOCUMENT["paths"].items():
        assert list(described.keys() - {"servers"}) == ["post" if path == CALLBACK else "get"]
        ports["servers" in described].add(path)

    probes = Probes(*cast("Any", (SimpleNamespace(), SimpleNamespace(), bool)))
    assert routes(admin_app(probes, AdminTokens([]))) == ports[True]
    assert routes(public_app(*cast("Any", (SimpleNamespace(), SimpleNamespace())))) == {CALLBACK_PATH}
    assert ports[False] == {CALLBACK, HEALTH}


def described_for(bridge: BridgeProcess) -> Any:
    """The document, with the secret in force."""
    document = copy.deepcopy(DOCUMENT)
    (secret,) = document["paths"][CALLBACK]["post"]["parameters"]
    secret["schema"] = {"enum": [bridge.secret]}
    return schemathesis.openapi.from_dict(document)


@pytest.mark.parametrize(("path", "mode"), OPERATIONS, ids=str)
def test_the_bridge_does_what_the_document_says(bridge: BridgeProcess, path: str, mode: GenerationMode) -> None:
    """Requests as described, and ones that are not: each answer is one of those described, by status, type, headers and body."""
    schema = described_for(bridge).include(path=path)
    (operation,) = [each.ok() for each in schema.get_all_operations()]
    url = f"http://127.0.0.1:{bridge.port}" if path in PUBLIC else bridge.admin_url

    @few_or_many(5)
    @given(operation.as_strategy(generation_mode=mode))
    def fuzz(case: schemathesis.Case[Any]) -> None:
        response = case.call(base_url=url)
        # What is no report is quarantined and answered 200: that is the contract.
        case.validate_response(response, excluded_checks=[negative_data_rejection])
        if path == CALLBACK and mode is GenerationMode.POSITIVE:
            assert response.status_code == 200

    assert while_budget_lasts(fuzz, (1 - DECODER_SHARE) / len(OPERATIONS)) >= 1


@pytest.mark.parametrize("path", DOCUMENT["paths"])
async def test_another_method_is_not_allowed(bridge: BridgeProcess, path: str) -> None:
    """405 and Allow; the admin port tells OPTIONS which there are."""
    (described,) = DOCUMENT["paths"][path].keys() - {"servers"}
    port = bridge.port if path in PUBLIC else bridge.admin_port
    for method in METHODS:
        data = request(method, path.format(secret=SECRET), headers=[("Connection", "close")])
        answer = await exchange(port, data)
        assert answer is not None
        if path == HEALTH and method == "HEAD":
            assert answer.status == 200
        elif method.lower() != described:
            allowed = method == "OPTIONS" and path not in PUBLIC
            assert (method, answer.status) == (method, 204 if allowed else 405)
            assert answer.headers["allow"]
