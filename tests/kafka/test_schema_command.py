"""``chatapp-bridge schema`` against a real registry: what it prints, its exit codes, and that it may run again and again."""

import asyncio
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from support.certificates import make_ca
from support.registry_gate import gate

from bridge import config
from bridge.cli import main
from bridge.lab.embedded import EmbeddedRegistry
from bridge.registry.client import RegistryClient
from bridge.schemas import written_schema

OURS = json.loads(written_schema().text)


class Ran(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


class Schemas:
    """The command on a subject of the test's own."""

    def __init__(self, registry: EmbeddedRegistry, capsys: pytest.CaptureFixture[str]) -> None:
        self.topic = f"status-{uuid.uuid4()}"
        self.subject = f"{self.topic}-value"
        self._capsys = capsys
        self.url = registry.url

    async def run(self, *arguments: str, **settings: object) -> Ran:
        """``chatapp-bridge schema …``."""
        given = {"topics.status": self.topic, "registry.url": self.url} | {
            f"registry.{key}": value for key, value in settings.items()
        }
        assignments = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
        self._capsys.readouterr()
        code = await asyncio.to_thread(main, ["schema", *arguments, *assignments])
        return Ran(code, *self._capsys.readouterr())

    def client(self) -> RegistryClient:
        """To see, and do, what the command didn't."""
        return RegistryClient(config.load(environment={}, assignments=[f"registry.url={self.url}"]).settings.registry)


@pytest.fixture
def schemas(registry: EmbeddedRegistry, capsys: pytest.CaptureFixture[str]) -> Schemas:
    """The command, against the session's registry."""
    return Schemas(registry, capsys)


def changed(*, without: str = "", added: Mapping[str, object] | None = None) -> str:
    """Our schema without a field, or with one more."""
    fields = [each for each in OURS["fields"] if each["name"] != without]
    return json.dumps({**OURS, "fields": [*fields, *([added] if added else [])]})


async def test_registering_is_done_once_however_often_it_runs(schemas: Schemas) -> None:
    """First it says what it would do, then does it, then finds it done; several at once agree."""
    tried = await schemas.run("register", "--dry-run")
    assert tried.code == 0
    assert "would set the compatibility FULL_TRANSITIVE\nwould register a new version" in tried.out
    async with schemas.client() as client:
        assert await client.versions(schemas.subject) == []

        first = await schemas.run("register")
        at_once = await asyncio.gather(*(schemas.run("register") for _ in range(3)))
        again = await schemas.run("register")
        tried = await schemas.run("register", "--dry-run")

        found = await client.find(schemas.subject, written_schema().text)
        assert found is not None
        assert await client.compatibility(schemas.subject) == "FULL_TRANSITIVE"
        assert await client.versions(schemas.subject) == [1]
    assert {0} == {ran.code for ran in (first, *at_once, again, tried)}
    assert f"registered: version 1, id {found.id}\n" in first.out
    assert "compatibility: set to FULL_TRANSITIVE" in first.out
    assert f"registered already: version 1, id {found.id}\n" in again.out
    assert f"would leave the level FULL_TRANSITIVE\nis version 1, id {found.id}" in tried.out


async def test_check_tells_before_and_after(schemas: Schemas) -> None:
    """An empty subject bears anything; what is there is compared with; the level and the id are said."""
    before = await schemas.run("check")
    await schemas.run("register")
    after = await schemas.run("check")

    assert (before.code, after.code) == (0, 0)
    assert f"subject {schemas.subject}\n" in before.out
    assert f"{schemas.subject}: nothing there yet" in before.out
    assert "not registered yet" in before.out
    assert f"{schemas.subject}: compatible with version 1\ncompatibility: FULL_TRANSITIVE\n" in after.out
    assert "registered as version 1, id " in after.out


async def test_what_can_t_stand_beside_a_version_is_not_registered(schemas: Schemas) -> None:
    """Each version is looked at, whatever level the registry has; nothing is changed there, and it is said why."""
    needed = {"name": "needed", "type": "string"}
    async with schemas.client() as client:
        await client.register(schemas.subject, changed(added=needed))
        await client.set_compatibility("NONE", schemas.subject)
        await client.register(schemas.subject, changed(without="extras"))

        checked, registered = await schemas.run("check"), await schemas.run("register")

        assert await client.versions(schemas.subject) == [1, 2]
        assert await client.compatibility(schemas.subject) == "NONE"
    assert (checked.code, registered.code) == (1, 1)
    for said in (checked.out, registered.out):
        assert f"{schemas.subject}: not compatible with version 1\n  its readers can't read our data: " in said
        assert "reader field missing default value (needed)" in said
        assert "version 2" not in said.partition("not compatible")[2]
    assert "nothing was registered" in registered.out


async def test_a_level_that_somebody_chose_is_left(schemas: Schemas) -> None:
    """A weaker one is told of, and neither raised nor lowered."""
    async with schemas.client() as client:
        await client.register(schemas.subject, changed(without="extras"))
        await client.set_compatibility("BACKWARD", schemas.subject)

        registered = await schemas.run("register")

        assert await client.compatibility(schemas.subject) == "BACKWARD"
        assert await client.versions(schemas.subject) == [1, 2]
    assert registered.code == 0
    assert "registered: version 2, id " in registered.out
    assert "compatibility: BACKWARD, weaker than FULL_TRANSITIVE; it was left" in registered.out


async def test_diff_shows_what_the_latest_version_lacks(schemas: Schemas) -> None:
    """Nothing there, something else there, the same there: 1, 1, 0."""
    nothing = await schemas.run("diff")
    async with schemas.client() as client:
        await client.register(schemas.subject, changed(without="extras", added={"name": "old", "type": "int"}))
        other = await schemas.run("diff")
        await client.set_compatibility("NONE", schemas.subject)
        await client.register(schemas.subject, written_schema().text)
        same = await schemas.run("diff")

    assert (nothing.code, other.code, same.code) == (1, 1, 0)
    assert "nothing is registered there" in nothing.out
    assert "+ field extras: {" in other.out
    assert '- field old: {"type": "int"}\nversion 1, the latest, differs\n' in other.out
    assert same.out.endswith("version 2, the latest, is the same\n")


async def test_a_registry_behind_tls_with_credentials(schemas: Schemas, tmp_path: Path) -> None:
    """Basic authentication and a bearer token, each through TLS of an authority of its own; without them, refused."""
    authority = make_ca(tmp_path)
    context = authority.server_context(authority.server())
    (tmp_path / "token").write_text("a.token.of-the-tests\n")
    basic = {"username": "bridge", "password": "secret"}
    async with (
        gate(schemas.url, authorization="Basic YnJpZGdlOnNlY3JldA==", context=context) as by_password,
        gate(schemas.url, authorization="Bearer a.token.of-the-tests", context=context) as by_token,
    ):
        registered = await schemas.run("register", url=by_password, ssl_cafile=authority.cafile, **basic)
        with_token = {"ssl_cafile": authority.cafile, "token_file": tmp_path / "token"}
        same = await schemas.run("diff", url=by_token, **with_token)
        wrong = await schemas.run(
            "register", url=by_password, ssl_cafile=authority.cafile, **{**basic, "password": "wr0ng-one"}
        )
        unknown = await schemas.run("check", url=by_token, token="a.token.of-the-tests")  # noqa: S106 - opens nothing

    assert (registered.code, same.code) == (0, 0), registered.err + same.err
    assert "registered: version 1" in registered.out
    assert (wrong.code, unknown.code) == (1, 1)
    assert "refuses the credentials" in wrong.err
    assert "wr0ng-one" not in wrong.err + wrong.out
    assert "registry.ssl_cafile" in unknown.err


async def test_a_registry_that_is_away_is_told_of(schemas: Schemas, registry: EmbeddedRegistry) -> None:
    """Hanging, or at another path: exit 1, nothing is said to be done, and no long wait."""
    registry.pause()
    hanging = await schemas.run("register", timeout_seconds=0.5)
    registry.resume()
    elsewhere = await schemas.run("register", url=registry.url.replace("/apis/ccompat/v7", "/apis"))

    assert (hanging.code, elsewhere.code) == (1, 1)
    assert "no answer within 0.5 s" in hanging.err
    assert "is no Schema Registry: it answers 404" in elsewhere.err
    assert "registered" not in hanging.out + elsewhere.out
