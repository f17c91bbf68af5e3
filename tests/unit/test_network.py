"""TLS and proxies: the same checks everywhere, and nobody is asked but whom the configuration names."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from support.certificates import make_bare_server, make_ca
from support.registry_gate import answering, gate
from support.wire_server import WireServer

from bridge import config
from bridge.cli import main
from bridge.errors import RegistryUnavailable
from bridge.kafka.connection import client_arguments
from bridge.kafka.wire import connect
from bridge.network import client_context
from bridge.operate import probe
from bridge.registry.client import RegistryClient

HOST = "127.0.0.1"
SCHEMA = '{"type": "record", "name": "R", "fields": []}'
FOUND = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 23\r\nConnection: close\r\n\r\n"
    b'{"id": 7, "version": 1}'
)
# Each of them alone made httpx raise, or made it ask the proxy.
ENVIRONMENTS = {
    "no_proxy as IPv6 network": {"NO_PROXY": "localhost,fd00::/8,[::1]"},
    "socks": {"ALL_PROXY": "socks5://proxy.test:1080", "HTTPS_PROXY": "socks5h://proxy.test:1080"},
    "http": {"HTTP_PROXY": "http://proxy.test:3128", "HTTPS_PROXY": "http://proxy.test:3128"},
    "no address": {"HTTP_PROXY": "://", "ALL_PROXY": "proxy"},
}


def registry(url: str, **keys: str) -> config.Registry:
    """``[registry]`` with these keys."""
    assignments = [f"registry.{key}={value}" for key, value in {"url": url, **keys}.items()]
    return config.load(environment={}, assignments=assignments).settings.registry


# --- proxies --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
async def test_proxies_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    """Neither for the registry nor for the callback address, whose secret a proxy would read."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    async with answering(FOUND) as url:
        async with RegistryClient(registry(url)) as client:
            assert await client.lookup("subject", SCHEMA) == 7
        settings = config.load(environment={}).settings
        async with asyncio.timeout(10):
            await probe._Probe(settings, f"{url}/callbacks/chatapp/status/secret", client_context(""))._push()


async def test_the_registry_is_asked_through_the_proxy_that_is_configured() -> None:
    """With its credentials; the registry's name is the proxy's to find."""
    async with answering(FOUND) as url, gate(url, authorization="") as address:
        proxy = address.replace("http://", "http://kim:pass@")
        async with RegistryClient(registry("http://registry.test:8081", proxy=proxy)) as client:
            assert await client.lookup("subject", SCHEMA) == 7


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_wants_other_credentials_is_named_by_its_key(scheme: str) -> None:
    """Whether it is asked for a page or for a tunnel; nothing shows the credentials."""
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with answering(refusal) as url:
        proxy = url.replace("http://", "http://kim:pass-word@")
        async with RegistryClient(registry(f"{scheme}://registry.test:8081", proxy=proxy)) as client:
            with pytest.raises(RegistryUnavailable, match=r"proxy refuses \(407.*; look at registry\.proxy") as failed:
                await client.lookup("subject", SCHEMA)
    assert "pass-word" not in str(failed.value)


async def test_a_proxy_that_cannot_be_reached_is_named_by_its_key() -> None:
    """Nobody looks for the fault at the registry."""
    async with RegistryClient(registry("http://registry.test:8081", proxy=f"http://{HOST}:1")) as client:
        with pytest.raises(RegistryUnavailable, match=r"see that it runs, and registry\.proxy"):
            await client.lookup("subject", SCHEMA)


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://proxy.test:1080",
        "proxy.test:3128",
        "http://",
        "http://kim:pass-word@proxy.test:0",
        "kim:pass-word@proxy.test:3128",
        "http:/kim:pass-word@proxy.test:3128",
    ],
)
def test_what_is_no_proxy_is_refused_without_its_password(proxy: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By its key; socks would need another package."""
    assert main(["config", "--set", "registry.url=http://registry.test", "--set", f"registry.proxy={proxy}"]) in {1, 2}
    said = "".join(capsys.readouterr())
    assert "registry.proxy: " in said
    assert "pass-word" not in said


@pytest.mark.parametrize(
    "url",
    ["kim:pass-word@registry.test:8081", "http:/kim:pass-word@registry.test", "http://kim:pass-word,2@registry.test"],
)
def test_credentials_in_the_registrys_address_are_refused_and_not_shown(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the address is wrong in another way, or the password has a comma."""
    assert main(["config", "--set", f"registry.url={url}"]) in {1, 2}
    said = "".join(capsys.readouterr())
    assert "registry.test carries credentials" in said.replace(":8081", "")
    assert "pass-word" not in said


def test_the_proxys_password_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """In the listing of the configuration."""
    proxy = "http://kim:pass-word@proxy.test:3128"
    assert main(["config", "--set", "registry.url=http://registry.test", "--set", f"registry.proxy={proxy}"]) == 0
    said = capsys.readouterr().out
    assert 'proxy = "http://<masked>@proxy.test:3128"' in said
    assert "pass-word" not in said


# --- certificates ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def python_3_13(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ssl.SSLContext]:
    """Contexts as Python 3.13 makes them, whatever Python this is; the function."""
    made = ssl.create_default_context

    def strict(*arguments: object, **named: object) -> ssl.SSLContext:
        context: ssl.SSLContext = made(*arguments, **named)  # type: ignore[arg-type]
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    return strict


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """A TLS server without key identifiers in its certificates that answers as a registry; its address and authority."""
    cafile, certificate = make_bare_server(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certfile, certificate.keyfile)
    async with answering(FOUND) as url, gate(url, context=context) as address:
        yield address, str(cafile)


async def test_certificates_without_key_identifiers_are_good_on_every_python(
    bare: tuple[str, str], python_3_13: Callable[..., ssl.SSLContext]
) -> None:
    """For the registry and for Kafka, as for librdkafka. Python 3.13's own context refuses them."""
    url, cafile = bare
    async with httpx.AsyncClient(verify=python_3_13(cafile=cafile)) as strict:
        with pytest.raises(httpx.ConnectError, match="Key Identifier"):
            await strict.get(url)
    async with RegistryClient(registry(url, ssl_cafile=cafile)) as client:
        assert await client.lookup("subject", SCHEMA) == 7


async def test_kafka_too(tmp_path: Path, python_3_13: Callable[..., ssl.SSLContext]) -> None:
    """The produce path, the look at the topics and the commands make their contexts in one place."""
    assert python_3_13 is ssl.create_default_context
    cafile, certificate = make_bare_server(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certfile, certificate.keyfile)
    assignments = ["kafka.security_protocol=SSL", f"kafka.ssl_cafile={cafile}"]
    arguments = client_arguments(config.load(environment={}, assignments=assignments).settings.kafka)
    async with WireServer(context) as server:
        await connect(HOST, server.port, arguments, 10.0)


async def test_another_authority_and_another_name_are_refused_all_the_same(tmp_path: Path) -> None:
    """What is switched off is about the form of a certificate, not about who signed it for whom."""
    ours, theirs = make_ca(tmp_path, "ours"), make_ca(tmp_path, "theirs")
    for certificate, words in (
        (theirs.server(), "unable to get local issuer certificate"),
        (ours.server("elsewhere.test"), "IP address mismatch"),
    ):
        async with WireServer(ours.server_context(certificate)) as server:
            arguments = {
                "client_id": "tests",
                "security_protocol": "SSL",
                "ssl_context": client_context(str(ours.cafile)),
            }
            with pytest.raises(ssl.SSLCertVerificationError, match=words):
                await connect(HOST, server.port, arguments, 10.0)
