"""Tokens for OAUTHBEARER: how one is had of an OIDC provider and of AWS, kept, shared and renewed, and why there is none."""

import base64
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.certificates import Authority
from support.token_endpoint import CLIENT, SECRET, TokenEndpoint

from bridge.config import Kafka, load
from bridge.errors import BridgeError, ConfigurationError, KafkaUnavailable
from bridge.kafka import credentials
from bridge.kafka.connection import client_arguments
from bridge.kafka.credentials import Token, TokenProvider, TokenSource
from bridge.kafka.librdkafka import librdkafka_arguments

SASL = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"}


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    """Without TLS; its tokens are ``token-1`` and so on."""
    numbers = itertools.count(1)
    with TokenEndpoint(lambda _: f"token-{next(numbers)}") as endpoint:
        yield endpoint


def kafka(**keys: Any) -> Kafka:
    """``[kafka]`` with OAUTHBEARER and these keys."""
    assignments = [f"kafka.{key}={value}" for key, value in {**SASL, **keys}.items()]
    return load(environment={}, assignments=assignments).settings.kafka


def of(endpoint: TokenEndpoint, **keys: Any) -> TokenProvider:
    """A provider that asks the endpoint."""
    settings = {
        "sasl_oauth": "oidc",
        "sasl_oauth_token_endpoint": endpoint.url,
        "sasl_oauth_client_id": CLIENT,
        **({} if "sasl_oauth_client_secret_file" in keys else {"sasl_oauth_client_secret": SECRET}),
        **keys,
    }
    return TokenProvider(kafka(**settings))


# --- an OIDC provider ---------------------------------------------------------------------------------------------------


async def test_a_token_is_fetched_once_for_all_clients_of_the_process(endpoint: TokenEndpoint) -> None:
    """By client credentials; the service's and librdkafka's."""
    provider = of(
        endpoint, sasl_oauth_scope="kafka write", sasl_oauth_extensions="logicalCluster=lkc-1,identityPoolId=p"
    )
    assert await provider.token() == "token-1"
    text, ends_at, _, extensions = of(
        endpoint, sasl_oauth_scope="kafka write", sasl_oauth_extensions="logicalCluster=lkc-1,identityPoolId=p"
    ).for_librdkafka("")
    assert (text, extensions) == ("token-1", {"logicalCluster": "lkc-1", "identityPoolId": "p"})
    assert 600 < ends_at - time.time() <= 900
    [asked] = endpoint.asked
    assert asked.form == {"grant_type": "client_credentials", "scope": "kafka write"}
    assert asked.basic == "the+bridge:s3cret%2B%2F%3D"


def test_a_provider_that_takes_no_http_basic_gets_the_credentials_in_the_form(endpoint: TokenEndpoint) -> None:
    """It is asked in that way from then on."""
    endpoint.takes = {"form"}
    endpoint.seconds = 0
    provider = of(endpoint)
    assert provider.current().text == "token-1"
    assert [bool(each.basic) for each in endpoint.asked] == [True, False]
    assert provider.current().text == "token-2"
    assert [bool(each.basic) for each in endpoint.asked] == [True, False, False]


def test_environment_proxies_are_not_asked(endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration does not show them."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert of(endpoint).current().text == "token-1"


def test_a_secret_file_that_changes_is_read_for_the_next_token(endpoint: TokenEndpoint, tmp_path: Path) -> None:
    """And so are files that are not there."""
    file = tmp_path / "secret"
    provider = of(endpoint, sasl_oauth_client_secret_file=file)
    with pytest.raises(ConfigurationError, match="sasl_oauth_client_secret_file: can't read"):
        provider.current()
    file.write_text("wrong\n")
    provider = of(endpoint, sasl_oauth_client_secret_file=file, sasl_oauth_scope="another source")
    with pytest.raises(ConfigurationError, match="invalid_client"):
        provider.current()
    file.write_text(SECRET + "\n")
    provider = of(endpoint, sasl_oauth_client_secret_file=file, sasl_oauth_scope="and another")
    assert provider.current().text == "token-1"


@pytest.mark.parametrize(
    ("seconds", "text", "least", "most"),
    [
        ("120", "opaque", 110, 120),
        (None, "opaque", 290, 300),
        ("inf", "opaque", 290, 300),
        ("nan", "opaque", 290, 300),
        (None, "a.e30.b", 290, 300),
        ("soon", f"x.{base64.urlsafe_b64encode(json.dumps({'exp': 4_000_000_000}).encode()).decode()}.", 1e9, 4e9),
    ],
)
def test_how_long_a_token_is_good(
    endpoint: TokenEndpoint, seconds: str | None, text: str, least: float, most: float
) -> None:
    """As the endpoint says, a number or a text; or as the token says; or five minutes."""
    endpoint.answer = 200, json.dumps({"access_token": text, "expires_in": seconds}).encode()
    assert least < of(endpoint).current().seconds_left <= most


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, b'{"error": "invalid_client"}', ConfigurationError, "401 invalid_client); correct kafka.sasl_oauth_client_id"),
        (401, b"<html>", ConfigurationError, "401); correct kafka.sasl_oauth_client_id"),
        (400, b'{"error": "invalid_scope", "error_description": "no such scope"}', ConfigurationError,
         "400 invalid_scope no such scope); correct kafka.sasl_oauth_scope"),
        (404, b"", ConfigurationError, "404); correct kafka.sasl_oauth_token_endpoint"),
        (302, b"", ConfigurationError, "302); correct kafka.sasl_oauth_token_endpoint"),
        (503, b"\xff", KafkaUnavailable, "is in trouble (503)"),
        (429, b"[]", KafkaUnavailable, "is in trouble (429)"),
        (200, b"{}", KafkaUnavailable, "its answer has no access_token"),
        (200, b'{"access_token": "two words"}', KafkaUnavailable, "its answer has no access_token"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_with_status_and_error(
    endpoint: TokenEndpoint, status: int, body: bytes, kind: type[BridgeError], words: str
) -> None:
    """With the endpoint, and the key to look at."""
    endpoint.answer = status, body
    with pytest.raises(kind) as refused:
        of(endpoint).current()
    assert type(refused.value) is kind
    assert words in str(refused.value)
    assert f"the token endpoint {endpoint.url}" in str(refused.value)


def test_a_refusal_never_has_the_secret(endpoint: TokenEndpoint) -> None:
    """Though the endpoint repeats it."""
    endpoint.takes = set()
    with pytest.raises(ConfigurationError, match="who is <masked>") as refused:
        of(endpoint).current()
    assert SECRET not in str(refused.value)


def test_the_endpoints_certificate_is_checked(tmp_path: Path) -> None:
    """By ``kafka.sasl_oauth_cafile``."""
    authority, other = Authority(tmp_path, "the-authority"), Authority(tmp_path, "another")
    with TokenEndpoint(lambda _: "token", authority.server_context(authority.server())) as endpoint:
        with pytest.raises(
            ConfigurationError, match=r"certificate is not trusted: .*; look at kafka.sasl_oauth_cafile"
        ):
            of(endpoint, sasl_oauth_cafile=other.cafile).current()
        assert of(endpoint, sasl_oauth_cafile=authority.cafile).current().text == "token"


def test_an_endpoint_that_cannot_be_reached_is_named() -> None:
    """With its key."""
    with TokenEndpoint(lambda _: "") as endpoint:
        gone = of(endpoint)
    with pytest.raises(KafkaUnavailable, match=r"can't be reached: .*; look at kafka.sasl_oauth_token_endpoint"):
        gone.current()


# --- keeping and renewing -----------------------------------------------------------------------------------------------


class Clock:
    """Monotonic time, as the source sees it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


class Fetch:
    """Gives tokens of 900 s, or fails."""

    def __init__(self) -> None:
        self.count = 0
        self.failure: BridgeError | None = None

    def __call__(self) -> Token:
        """One."""
        self.count += 1
        if self.failure is not None:
            raise self.failure
        return Token(f"token-{self.count}", time.monotonic() + 900)


def test_a_token_is_renewed_after_four_fifths_of_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before."""
    clock, fetch = Clock(monkeypatch), Fetch()
    source = TokenSource(fetch)
    said = []
    for now in (1000, 1719, 1721):
        clock.now = now
        said.append(source.token().text)
    assert said == ["token-1", "token-1", "token-2"]


def test_a_failing_endpoint_is_a_warning_while_the_token_is_good(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Then it is an error; and it is asked less and less often, every 10 s at least."""
    clock, fetch = Clock(monkeypatch), Fetch()
    source = TokenSource(fetch)
    source.token()
    fetch.failure = KafkaUnavailable("the token endpoint is in trouble (503)")
    for tenth in range(17_250, 18_985):
        clock.now = tenth / 10
        assert source.token().text == "token-1"
    assert 15 <= fetch.count <= 25
    said = {(each.message, vars(each)["error"]) for each in caplog.records}
    assert said == {("kafka_token_not_renewed", str(fetch.failure))}
    clock.now = 1899.0
    for _ in range(3):
        with pytest.raises(KafkaUnavailable, match="in trouble"):
            source.token()
    before, fetch.failure = fetch.count, None
    clock.now += 10.0
    assert source.token().text == f"token-{before + 1}"


def test_one_fetch_at_a_time_and_a_good_token_is_not_waited_for(endpoint: TokenEndpoint) -> None:
    """Whoever has none waits; others get the one that is good still."""
    endpoint.seconds = 100
    provider = of(endpoint)
    endpoint.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(provider.current) for _ in range(8)]
        endpoint.gate.set()
        assert {each.result(20).text for each in waiting} == {"token-1"}
    assert len(endpoint.asked) == 1

    began, gate, fetches = threading.Event(), threading.Event(), itertools.count()

    def fetch() -> Token:
        if next(fetches):
            began.set()
            gate.wait(20)
        return Token("a token", time.monotonic() - 100 + 110)

    source = TokenSource(fetch)
    source.token()
    source._renew_at = 0.0
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(source.token)
        assert began.wait(20)
        assert source.token().text == "a token"
        assert not renewing.done()
        gate.set()
        renewing.result(20)


def test_a_fetch_that_does_not_come_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint may send its answer a byte at a time."""
    monkeypatch.setattr(credentials, "_FETCH_SECONDS", 0.05)
    gate = threading.Event()

    def fetch() -> Token:
        gate.wait(20)
        return Token("", 0.0)

    with pytest.raises(KafkaUnavailable, match=r"no token came within 0.05 s"):
        TokenSource(fetch).token()
    gate.set()


# --- a file, and AWS ----------------------------------------------------------------------------------------------------


def test_a_token_file_is_read_for_each_login(tmp_path: Path) -> None:
    """Without blanks; extensions go with it as well."""
    file = tmp_path / "token"
    provider = TokenProvider(kafka(sasl_oauth_token_file=file, sasl_oauth_extensions="a=b=c"))
    for text in ("one", "two"):
        file.write_text(f" {text}\n\n")
        assert provider.current().text == text
    assert provider.extensions() == {"a": "b=c"}
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match=r"sasl_oauth_token_file: .* is empty; write the token there"):
        provider.current()


MSK = {"sasl_oauth": "aws_msk_iam", "sasl_oauth_aws_region": "ap-southeast-1"}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of nobody, from the environment alone."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/none",
        "AWS_SHARED_CREDENTIALS_FILE": "/none",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("aws")
def test_a_token_for_msk_is_a_signed_address_that_ends_after_fifteen_minutes() -> None:
    """It is kept until it is renewed, though signing another would cost nothing."""
    provider = TokenProvider(kafka(**MSK))
    token = provider.current()
    address = urlsplit(base64.urlsafe_b64decode(token.text + "=" * (-len(token.text) % 4)).decode())
    query = parse_qs(address.query)
    assert address.hostname == "kafka.ap-southeast-1.amazonaws.com"
    assert (query["Action"], query["X-Amz-Expires"]) == (["kafka-cluster:Connect"], ["900"])
    assert query["X-Amz-Credential"][0].startswith("AKIAEXAMPLE/")
    assert 800 < token.seconds_left <= 900
    assert provider.current() is token


@pytest.mark.usefixtures("aws")
def test_without_credentials_of_aws_it_is_told_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """No role, no variables."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(KafkaUnavailable, match="AWS has no credentials for this process; give it a role"):
        TokenProvider(kafka(**MSK, client_id="another-source")).current()


def test_without_the_signer_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", None)
    monkeypatch.setattr(credentials, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"kafka.sasl_oauth: .* install chatapp-bridge\[msk\]"):
        client_arguments(kafka(**MSK))


# --- librdkafka ---------------------------------------------------------------------------------------------------------


def test_librdkafka_closes_idle_connections_before_a_hosted_service_does() -> None:
    """Four minutes is what some of them allow."""
    assert 0 < librdkafka_arguments(load(environment={}).settings.kafka)["connections.max.idle.ms"] < 240_000
