"""The registry's client: what answers, or doesn't, is told apart, with words that name the address and the way out."""

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.certificates import Authority, make_ca
from support.registry_gate import answering, gate

from bridge import config
from bridge.errors import ConfigurationError, RegistryError, RegistryUnavailable
from bridge.lab.embedded.ports import Port
from bridge.registry.client import RegistryClient

SCHEMA = json.dumps({"type": "record", "name": "R", "fields": []})
HTML = "<!DOCTYPE html><title>Log in</title>"
PASSWORD = "pass-phrase-of-the-tests"  # noqa: S105 - opens nothing


def client(url: str, **settings: object) -> RegistryClient:
    """A client with these settings."""
    assignments = [f"registry.{key}={value}" for key, value in {"url": url, **settings}.items()]
    return RegistryClient(config.load(environment={}, assignments=assignments).settings.registry)


def response(status: int, body: object, kind: str = "application/json", *headers: str) -> bytes:
    """An HTTP answer; a body that is no text goes as JSON."""
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {kind}", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + content


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nothing listens."""
    port = Port()
    yield f"http://{port.address}"
    port.release()


NO_REGISTRY = "is no Schema Registry"
ANSWERS = {
    "a login page": (response(200, HTML, "text/html"), NO_REGISTRY, False),
    "a redirect to one": (response(302, "", "text/html", "Location: /login"), NO_REGISTRY, False),
    "another path": (response(404, HTML, "text/html"), NO_REGISTRY, False),
    "another path, said by a registry": (response(404, {"error_code": 404, "message": "HTTP 404"}), NO_REGISTRY, False),
    "JSON of another kind": (response(200, {"hello": "there"}), "no id in its answer", False),
    "a list": (response(200, [1]), "no id in its answer", False),
    "an id that is none": (response(200, {"id": "7", "version": 1}), "no id in its answer", False),
    "no HTTP": (b"220 mail.example.org ESMTP\r\n", "can't be reached", True),
    "nothing but an end": (b"", "can't be reached", True),
    "a wrong password": (response(401, {"error_code": 401, "message": "no"}), "correct registry.username", False),
    "a right too few": (response(403, {"error_code": 40301, "message": "no"}), "have them allowed it", False),
    "an unusable schema": (response(422, {"error_code": 42201, "message": "bad"}), "correct what it names", False),
    "trouble of its own": (response(500, {"error_code": 50001, "message": "store"}), "500 store", True),
    "a proxy without it": (response(502, HTML, "text/html"), "is in trouble", True),
    "too many requests": (response(429, {"error_code": 429, "message": "slow"}), "try again", True),
}


@pytest.mark.parametrize(("answer", "words", "retriable"), ANSWERS.values(), ids=ANSWERS)
async def test_what_is_no_answer_of_use_is_an_error_that_helps(answer: bytes, words: str, retriable: bool) -> None:
    """Never taken for "not registered", and known to be worth another try or not; address and subject are named."""
    async with answering(answer) as url, client(url) as asking:
        with pytest.raises(RegistryError) as failed:
            await asking.lookup("a-subject", SCHEMA)

    assert f"registry {url}, subject a-subject: " in str(failed.value)
    assert words in str(failed.value)
    assert retriable == failed.value.retriable


@pytest.mark.parametrize("code", [40401, 40403])
async def test_only_a_registry_s_own_words_say_that_nothing_is_registered(code: int) -> None:
    """No such subject, or the schema isn't under it: None, which is no error."""
    async with answering(response(404, {"error_code": code, "message": "no"})) as url, client(url) as asking:
        assert await asking.lookup("a-subject", SCHEMA) is None


async def test_silence_ends_after_the_time_that_is_set() -> None:
    """A registry that takes the request and never answers: an error that names the key."""
    async with answering(None) as url, client(url, timeout_seconds=0.1) as asking:
        with pytest.raises(RegistryUnavailable, match=r"no answer within 0\.1 s.*registry\.timeout_seconds"):
            await asking.versions("a-subject")


async def test_an_answer_without_end_is_given_up() -> None:
    """What is no registry may send for ever: neither memory nor time is taken for it."""
    endless = response(200, "[" + "1," * (9 * 1024 * 1024) + "1]")
    async with answering(endless) as url, client(url) as asking:
        with pytest.raises(RegistryError, match="more than 16777216 bytes"):
            await asking.versions("a-subject")


async def test_the_next_address_is_asked_where_one_is_away_or_in_trouble(nobody: str) -> None:
    """As Confluent's own clients do; with all of them away each is named."""
    async with AsyncExitStack() as servers:
        troubled = await servers.enter_async_context(answering(response(503, HTML, "text/html")))
        well = await servers.enter_async_context(answering(response(200, {"id": 7, "version": 2})))
        async with client(f"{nobody},{troubled},{well}") as asking:
            assert await asking.lookup("a-subject", SCHEMA) == 7

        async with client(f"{nobody},{troubled}") as asking:
            with pytest.raises(RegistryUnavailable) as failed:
                await asking.lookup("a-subject", SCHEMA)
    assert f"registry {nobody}, subject a-subject: can't be reached" in str(failed.value)
    assert f"registry {troubled}, subject a-subject: is in trouble" in str(failed.value)


async def test_an_address_that_refuses_is_not_passed_over() -> None:
    """A wrong password or a page in place of a registry is a mistake to be seen, not an outage to be survived."""
    async with AsyncExitStack() as servers:
        well = await servers.enter_async_context(answering(response(200, {"id": 7, "version": 2})))
        for answer in (response(401, {"error_code": 401, "message": "no"}), response(200, HTML, "text/html")):
            refusing = await servers.enter_async_context(answering(answer))
            async with client(f"{refusing},{well}") as asking:
                with pytest.raises(RegistryError, match=f"registry {refusing}, "):
                    await asking.lookup("a-subject", SCHEMA)


# --- who may ask ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs the registry's certificate."""
    return make_ca(tmp_path_factory.mktemp("ca"))


async def test_a_certificate_of_somebody_else_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    """Wrong authority, or wrong name: no request is sent, and the key is named. With the right one it is."""
    context = authority.server_context(authority.server())
    other_name = authority.server_context(authority.server("registry.example.org"))
    async with AsyncExitStack() as servers:
        real = await servers.enter_async_context(answering(response(200, {"id": 7, "version": 2})))
        url = await servers.enter_async_context(gate(real, context=context))
        misnamed = await servers.enter_async_context(gate(real, context=other_name))
        stranger = make_ca(tmp_path).cafile
        for address, cafile in ((url, stranger), (url, ""), (misnamed, authority.cafile)):
            async with client(address, ssl_cafile=cafile) as asking:
                with pytest.raises(RegistryError, match=r"is not trusted .*registry\.ssl_cafile") as failed:
                    await asking.lookup("a-subject", SCHEMA)
            assert not failed.value.retriable

        async with client(url, ssl_cafile=authority.cafile) as asking:
            assert await asking.lookup("a-subject", SCHEMA) == 7
        async with client(misnamed, ssl_cafile=authority.cafile, ssl_check_hostname="false") as asking:
            assert await asking.lookup("a-subject", SCHEMA) == 7


async def test_a_registry_may_want_a_certificate_of_its_clients(authority: Authority) -> None:
    """Mutual TLS, with a key that has a passphrase; without a certificate the error names the key."""
    own = authority.client("a-bridge", password=PASSWORD)
    context = authority.server_context(authority.server(), client_required=True)
    tls = {"ssl_cafile": authority.cafile}
    with_own = {**tls, "ssl_certfile": own.certfile, "ssl_keyfile": own.keyfile, "ssl_password": PASSWORD}
    async with answering(response(200, {"id": 7, "version": 2})) as real, gate(real, context=context) as url:
        async with client(url, **with_own) as asking:
            assert await asking.lookup("a-subject", SCHEMA) == 7
        async with client(url, **tls) as asking:
            with pytest.raises(RegistryError, match=r"registry\.ssl_certfile|can't be reached"):
                await asking.lookup("a-subject", SCHEMA)

    for wrong in ({**with_own, "ssl_password": "x"}, {**with_own, "ssl_password": ""}):
        with pytest.raises(
            ConfigurationError, match=r"registry\.ssl_certfile, .*registry\.ssl_password: can't be used"
        ):
            client(url, **wrong)


@pytest.mark.parametrize(
    ("header", "right", "wrong"),
    [
        ("Basic dToxIC8gMg==", {"username": "u", "password": "1 / 2"}, {"username": "u", "password": PASSWORD}),
        ("Bearer a.b-c", {"token": "a.b-c"}, {"token": PASSWORD}),
    ],
    ids=["basic", "bearer"],
)
async def test_credentials_are_sent_and_never_told(header: str, right: dict[str, str], wrong: dict[str, str]) -> None:
    """The right ones pass; wrong ones and none are an error that has neither them nor the header in it."""
    async with AsyncExitStack() as servers:
        real = await servers.enter_async_context(answering(response(200, {"id": 7, "version": 2})))
        url = await servers.enter_async_context(gate(real, authorization=header))
        async with client(url, **right) as asking:
            assert await asking.lookup("a-subject", SCHEMA) == 7
        for settings in (wrong, {}):
            async with client(url, **settings) as asking:
                with pytest.raises(RegistryError, match="refuses the credentials") as failed:
                    await asking.lookup("a-subject", SCHEMA)
            assert PASSWORD not in str(failed.value)
            assert PASSWORD not in repr(asking._settings)


@pytest.mark.parametrize(
    ("key", "settings", "header"),
    [("token_file", {}, "Bearer new"), ("password_file", {"username": "u"}, "Basic dTpuZXc=")],
)
async def test_a_mounted_secret_is_read_anew(tmp_path: Path, key: str, settings: dict[str, str], header: str) -> None:
    """What something beside renews is used from the next request on; gone for a moment, another try can help."""
    file = tmp_path / "secret"
    file.write_text("old\n")
    async with AsyncExitStack() as servers:
        real = await servers.enter_async_context(answering(response(200, {"id": 7, "version": 2})))
        url = await servers.enter_async_context(gate(real, authorization=header))
        asking = await servers.enter_async_context(client(url, **settings, **{key: file}))
        with pytest.raises(RegistryError, match="refuses the credentials"):
            await asking.lookup("a-subject", SCHEMA)
        file.unlink()
        with pytest.raises(RegistryUnavailable, match=rf"registry\.{key}: can't read"):
            await asking.lookup("a-subject", SCHEMA)
        file.write_text("new\n")
        assert await asking.lookup("a-subject", SCHEMA) == 7


@pytest.mark.parametrize("content", ["", "two words", "ümlaut"])
def test_what_can_t_be_used_stops_the_start(tmp_path: Path, content: str) -> None:
    """A file without a token, one that isn't there, certificates that are none: refused by key when the client is made."""
    file = tmp_path / "secret"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"registry\.token_file: .* holds no token"):
        client("http://127.0.0.1:1", token_file=file)
    with pytest.raises(ConfigurationError, match=r"registry\.password_file: can't read"):
        client("http://127.0.0.1:1", username="u", password_file=tmp_path / "none")
    with pytest.raises(ConfigurationError, match=r"registry\.ssl_cafile: .* as PEM"):
        client("https://127.0.0.1:1", ssl_cafile=file)
