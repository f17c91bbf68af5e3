"""Settings: documented once, taken from four sources in order, and refused with words that help and betray nothing."""

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge import config
from bridge.errors import ConfigurationError

SECRET = "a-secret-nobody-may-see-1"  # noqa: S105 - opens nothing
PASSWORD = "pass-phrase-of-the-tests"  # noqa: S105 - opens nothing


def refusal(*assignments: str, **sources: Any) -> str:
    """What the refusal of these settings says."""
    with pytest.raises(ConfigurationError) as refused:
        config.load(environment=sources.pop("environment", {}), assignments=assignments, **sources)
    return str(refused.value)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a file for --config."""

    def make(text: str) -> Path:
        path = tmp_path / "own.toml"
        path.write_text(text)
        return path

    return make


def keys_of_the_structs() -> set[str]:
    """``section.key`` for every field."""
    return {
        f"{section.name}.{field.name}"
        for section in msgspec.structs.fields(config.Settings)
        for field in msgspec.structs.fields(section.type)
    }


def keys_of_the_file() -> set[str]:
    """``section.key`` for every default."""
    document = tomllib.loads((config.data_directory("config") / "bridge.toml").read_text())
    return {f"{section}.{key}" for section, table in document.items() for key in table}


def in_force(loaded: config.Loaded) -> Mapping[str, config.Value]:
    """All values by key."""
    return {value.key: value for value in loaded.values}


# --- one place for each key -------------------------------------------------------------------------------------------


def test_every_key_has_a_default_and_every_default_a_key() -> None:
    """The structs and bridge.toml hold the same keys, and what is loaded has them all."""
    assert keys_of_the_structs() == keys_of_the_file()
    assert keys_of_the_structs() == set(in_force(config.load(environment={})))


def test_every_key_is_documented_by_a_sentence_of_its_own() -> None:
    """The comment above each key is its documentation: there for every one, and for one only."""
    documented = config.documentation()

    assert keys_of_the_structs() == set(documented)
    assert [key for key, text in documented.items() if len(text.split()) < 2] == []
    assert len(set(documented.values())) == len(documented)


def test_defaults_are_those_of_the_file_and_need_nothing_else() -> None:
    """With no other source every value is the file's, and says so."""
    loaded = config.load(environment={})

    document = tomllib.loads((config.data_directory("config") / "bridge.toml").read_text())
    assert msgspec.to_builtins(loaded.settings) == document
    assert {"default"} == {value.source for value in loaded.values}


# --- sources ----------------------------------------------------------------------------------------------------------


def test_a_flag_overrides_the_environment_and_that_a_file_and_that_the_default(file: Callable[[str], Path]) -> None:
    """Each source overrides the one before, key by key, and every value knows where it came from."""
    path = file("[server]\nport = 1001\nadmin_port = 1002\nbacklog = 1003\n")
    loaded = config.load(
        path, {"BRIDGE_SERVER__PORT": "2001", "BRIDGE_SERVER__ADMIN_PORT": "2002"}, ["server.port=3001"]
    )

    server = loaded.settings.server
    assert (server.port, server.admin_port, server.backlog, server.shutdown_seconds) == (3001, 2002, 1003, 10.0)
    values = in_force(loaded)
    assert [
        ("server.port", "--set"),
        ("server.admin_port", "environment BRIDGE_SERVER__ADMIN_PORT"),
        ("server.backlog", str(path)),
        ("server.shutdown_seconds", "default"),
    ] == [
        (key, values[key].source)
        for key in ("server.port", "server.admin_port", "server.backlog", "server.shutdown_seconds")
    ]


def test_the_last_of_several_flags_counts() -> None:
    """``--set`` twice for one key: the later one holds, as with any command."""
    loaded = config.load(environment={}, assignments=["log.level=debug", "log.level=error"])

    assert loaded.settings.log.level == "error"


def test_only_variables_with_two_underscores_are_settings() -> None:
    """What an orchestrator puts into every environment, such as BRIDGE_PORT, is none of ours."""
    loaded = config.load(
        environment={
            "BRIDGE_PORT": "tcp://10.0.0.1:80",
            "BRIDGE_SERVER_PORT": "1",
            "OTHER__X": "1",
            "SERVER__PORT": "1",
        }
    )

    assert {"default"} == {value.source for value in loaded.values}


def test_variables_may_be_written_in_any_case() -> None:
    """The section and the key are lower case, whatever the variable's are."""
    assert config.load(environment={"BRIDGE_Server__PORT": "1"}).settings.server.port == 1


def test_texts_become_what_the_key_holds() -> None:
    """In the environment and in flags everything is text: lists are cut at commas, numbers and booleans read."""
    loaded = config.load(
        environment={"BRIDGE_KAFKA__BOOTSTRAP_SERVERS": "a:1, b.example:2 ,[::1]:3,"},
        assignments=["access.allow_unauthenticated=true", "delivery.ack_deadline_seconds=1.75", "limits.body_bytes=17"],
    )

    settings = loaded.settings
    assert settings.kafka.bootstrap_servers == ["a:1", "b.example:2", "[::1]:3"]
    assert (
        settings.access.allow_unauthenticated, settings.delivery.ack_deadline_seconds, settings.limits.body_bytes,
    ) == (True, 1.75, 17)  # fmt: skip
    assert config.load(environment={"BRIDGE_ACCESS__PATH_SECRETS": ""}).settings.access.path_secrets == []


def test_a_value_may_hold_an_equals_sign() -> None:
    """Only the first ``=`` of a flag separates."""
    assert config.load(environment={}, assignments=["events.source=/a=b"]).settings.events.source == "/a=b"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[server]\nport = "80"', "server.port"),
        ("[server]\nport = 80.0", "server.port"),
        ("[server]\nport = true", "server.port"),
        ('[access]\nallow_unauthenticated = "true"', "access.allow_unauthenticated"),
        ('[kafka]\nbootstrap_servers = "a:1,b:2"', "kafka.bootstrap_servers"),
        ("[log]\nlevel = 1", "log.level"),
    ],
)
def test_a_file_has_types_and_they_must_be_right(file: Callable[[str], Path], text: str, key: str) -> None:
    """TOML tells a text from a number, so that a file is not guessed at: one that is wrong is refused, by key and file."""
    path = file(text)

    said = refusal(config_file=path)

    assert f"  {key} = " in said
    assert f"(from {path})" in said


# --- refusals ---------------------------------------------------------------------------------------------------------

WRONG_VALUES = {
    "server.port=abc": '"abc"',
    "server.port=65536": "65535",
    "server.port=-1": ">= 0",
    "server.admin_port=8080": "server.port as well; take another",
    "server.shutdown_seconds=0": "> 0",
    "server.shutdown_seconds=nan": "> 0",
    "server.backlog=0": ">= 1",
    "access.allow_unauthenticated=maybe": '"maybe"',
    "limits.body_bytes=0": ">= 1",
    "limits.header_count=1": ">= 8",
    "limits.body_read_seconds=2": "lower it",
    "limits.in_flight_bytes=8388607": "raise it",
    "kafka.bootstrap_servers=": "at least one",
    "kafka.bootstrap_servers=kafka": "host:port",
    "kafka.bootstrap_servers=a:1,b:0": "host:port",
    "kafka.bootstrap_servers=a:65536": "host:port",
    "kafka.bootstrap_servers=PLAINTEXT://a:1": "host:port",
    "server.health_path=healthz": "It must begin with /",
    "server.health_path=/a//b": "It must begin with /",
    "server.health_path=/a?b": "It must begin with /",
    "server.health_path=/callbacks/chatapp/status": "take another, such as /healthz",
    "server.health_path=/callbacks/chatapp/status/health": "take another, such as /healthz",
    "access.allowed_networks=10.0.0.0/8,10.1.2.3/16": "10.1.2.3/16 is an address within a network; write 10.1.0.0/16",
    "access.allowed_networks=2001:db8::1/32": "write 2001:db8::/32",
    "access.allowed_networks=example.org": "example.org is not a network",
    "access.trusted_proxies=10.0.0.0/33": "10.0.0.0/33 is not a network",
    "limits.unauthenticated_per_second=-1": ">= 0",
    "limits.body_items=0": ">= 1",
    "kafka.security_protocol=TLS": "SASL_SSL",
    "kafka.compression_type=brotli": "zstd",
    "kafka.request_timeout_ms=1.5": '"1.5"',
    "kafka.ssl_cafile=/nowhere/ca.pem": "use SSL or SASL_SSL",
    "kafka.ssl_password=x": "kafka.ssl_certfile",
    "kafka.ssl_password_file=/f": "kafka.ssl_certfile",
    "kafka.sasl_plain_username=u": "kafka.security_protocol is PLAINTEXT",
    "kafka.sasl_plain_password=p": "kafka.security_protocol is PLAINTEXT",
    "kafka.sasl_plain_password_file=/f": "kafka.security_protocol is PLAINTEXT",
    "kafka.sasl_oauth_token_file=/f": "kafka.security_protocol is PLAINTEXT",
    "kafka.sasl_oauth_client_secret=hidden": "kafka.security_protocol is PLAINTEXT",
    "kafka.sasl_oauth_extensions=logicalCluster=lkc-1": "kafka.security_protocol is PLAINTEXT",
    "kafka.sasl_oauth_extensions=auth=mine": "SASL extensions",
    "kafka.sasl_oauth_extensions=logical-cluster=lkc-1": "SASL extensions",
    "kafka.sasl_oauth_extensions=logicalCluster": "SASL extensions",
    "kafka.sasl_oauth_aws_region=eu-west-1.evil.example/": "AWS region",
    "kafka.sasl_oauth=iam": "aws_msk_iam",
    "kafka.metadata_max_age_ms=240000": "<= 180000",
    "topics.status=": "Topic of the events",
    "topics.status=..": "Topic of the events",
    "topics.quarantine=a b": '"a b"',
    "topics.quarantine=chatapp.status.v1": "take another",
    "topics.check=maybe": "warn, or refuse",
    "events.format=xml": '"xml"',
    "events.source=": "CloudEvents",
    "events.source=a b": '"a b"',
    "events.source=/konto-ä": "a URI reference",
    "events.source=/100%": "a URI reference",
    "delivery.ack_deadline_seconds=nan": ">= 0.1",
    "delivery.ack_deadline_seconds=inf": "<= 60",
    "delivery.spool_after_ms=2000": "lower it",
    "spool.directory=": "Directory of the spool",
    "spool.max_bytes=1": ">= 1048576",
    "registry.url=registry:8081": "http://host:port or https://host:port",
    "registry.url=ftp://registry:8081": "http://host:port or https://host:port",
    "registry.url=http://registry:port": "http://host:port or https://host:port",
    "registry.url=http://good:8081,http://": "http://host:port or https://host:port",
    "registry.url=http://registry:8081/?a=b": "http://host:port or https://host:port",
    "registry.url=http://user:secret@registry:8081": "set registry.username and registry.password",
    "registry.username=u": "registry.url is empty",
    "registry.token=t": "registry.url is empty",
    "registry.ssl_cafile=/nowhere/ca.pem": "no https address",
    "registry.ssl_password=x": "without registry.ssl_certfile",
    "registry.timeout_seconds=0": "> 0",
    "log.level=loud": "debug, info, warning or error",
    "server.prot=1": "no such key; this section has host, port",
    "serve.port=1": "no such key; the sections are server, access",
    "port=1": "no such key",
    "spool.directory=/\udcff": "no UTF-8 text",
    "server.port=\udcff": "no UTF-8 text",
}


@pytest.mark.parametrize(("assignment", "words"), WRONG_VALUES.items(), ids=map(ascii, WRONG_VALUES))
def test_what_is_wrong_is_named_with_a_way_out(assignment: str, words: str) -> None:
    """A wrong, unknown or contradicting key stops the start: the message begins its line with the key and helps."""
    said = refusal(assignment)

    key = assignment.partition("=")[0]
    lines = [line for line in said.splitlines() if line.startswith(f"  {key}")]
    assert len(lines) == 1, said
    assert words in lines[0]


OAUTH = ("security_protocol=SASL_SSL", "sasl_mechanism=OAUTHBEARER")
OIDC = (
    *OAUTH,
    "sasl_oauth=oidc",
    "sasl_oauth_token_endpoint=https://idp.test/token",
    "sasl_oauth_client_id=bridge",
    "sasl_oauth_client_secret=hidden",
)


@pytest.mark.parametrize(
    ("assignments", "key", "words"),
    [
        (["security_protocol=SSL", "ssl_cafile=/nowhere/ca.pem"], "ssl_cafile", "no file /nowhere/ca.pem; mount it"),
        (["security_protocol=SSL", f"ssl_keyfile={__file__}"], "ssl_keyfile", "without kafka.ssl_certfile; set both"),
        (["security_protocol=SASL_SSL", "sasl_plain_password=p"], "sasl_plain_username", "SCRAM-SHA-512 needs it"),
        (["security_protocol=SASL_SSL", "sasl_plain_username=u"], "sasl_plain_password", "exactly one place"),
        (
            [
                "security_protocol=SASL_SSL",
                "sasl_plain_username=u",
                "sasl_plain_password=p",
                "sasl_plain_password_file=/f",
            ],
            "sasl_plain_password",
            "exactly one place",
        ),
        ([*OAUTH], "sasl_oauth_token_file", "mount the token"),
        ([*OAUTH, "sasl_oauth=aws_msk_iam"], "sasl_oauth_aws_region", "set the cluster's region"),
        ([*OIDC, "sasl_oauth_client_id="], "sasl_oauth_client_id", "kafka.sasl_oauth = oidc needs it"),
        ([*OIDC, "sasl_oauth_token_endpoint="], "sasl_oauth_token_endpoint", "kafka.sasl_oauth = oidc needs it"),
        ([*OIDC, "sasl_oauth_token_endpoint=idp.test/token"], "sasl_oauth_token_endpoint", "give https://host/path"),
        (
            [*OIDC, "sasl_oauth_token_endpoint=https://kim:hidden@idp.test/token"],
            "sasl_oauth_token_endpoint",
            "https://<masked>@idp.test/token carries credentials",
        ),
        ([*OIDC, "sasl_oauth_client_secret_file=/f"], "sasl_oauth_client_secret", "exactly one place"),
        ([*OIDC, "sasl_oauth_client_secret="], "sasl_oauth_client_secret", "exactly one place"),
        ([*OIDC, "sasl_oauth_cafile=/none"], "sasl_oauth_cafile", "there is no file /none"),
        ([*OIDC, "sasl_oauth_token_file=/t"], "sasl_oauth_token_file", "set that to file"),
        ([*OIDC, "sasl_oauth_aws_region=eu-west-1"], "sasl_oauth_aws_region", "set that to aws_msk_iam"),
        ([*OAUTH, "sasl_oauth_token_file=/t", "sasl_oauth_scope=s"], "sasl_oauth_scope", "set that to oidc"),
        (
            [
                *OAUTH,
                "sasl_oauth_token_file=/t",
                "sasl_plain_password=p",
            ],
            "sasl_plain_password",
            "kafka.sasl_mechanism is OAUTHBEARER",
        ),
    ],
)
def test_security_settings_that_contradict_each_other_are_refused(assignments: list[str], key: str, words: str) -> None:
    """Half of a pair, two places for one password, what the chosen mechanism doesn't use: refused, never ignored."""
    said = refusal(*(f"kafka.{each}" for each in assignments))

    assert [f"  kafka.{key}"] == [line.partition(":")[0] for line in said.splitlines()[1:]]
    assert words in said
    assert "hidden" not in said


def test_oauth_is_configured_by_the_environment_like_everything_else() -> None:
    """Extensions are a list."""
    environment = {
        f"BRIDGE_KAFKA__{key.upper()}": value for key, _, value in (each.partition("=") for each in OIDC)
    } | {"BRIDGE_KAFKA__SASL_OAUTH_EXTENSIONS": "logicalCluster=lkc-1,identityPoolId=pool-2"}
    kafka = config.load(environment=environment).settings.kafka
    assert (kafka.sasl_oauth, kafka.sasl_oauth_client_secret) == ("oidc", "hidden")
    assert kafka.sasl_oauth_extensions == ["logicalCluster=lkc-1", "identityPoolId=pool-2"]


@pytest.mark.parametrize(
    ("assignments", "key", "words"),
    [
        (["ssl_cafile=/nowhere/ca.pem"], "ssl_cafile", "no file /nowhere/ca.pem; mount it"),
        ([f"ssl_keyfile={__file__}"], "ssl_keyfile", "without registry.ssl_certfile; set both"),
        (["username=u"], "password", "exactly one place"),
        (["username=u", "password=p", "password_file=/f"], "password", "exactly one place"),
        (["username=u:v", "password=p"], "username", "a colon"),
        (["password=p"], "password", "without registry.username"),
        (["password_file=/f"], "password_file", "without registry.username"),
        (["token=t", "token_file=/f"], "token_file", "keep one of them"),
        (["username=u", "password=p", "token=t"], "username", "a token is set as well"),
        (["token=a b"], "token", "no header can carry"),
    ],
)
def test_registry_settings_that_contradict_each_other_are_refused(assignments: list[str], key: str, words: str) -> None:
    """Half of a pair, two ways to show who one is, what no header can carry: refused, by its key."""
    said = refusal("registry.url=https://registry:8081", *(f"registry.{each}" for each in assignments))

    assert [f"  registry.{key}"] == [line.partition(":")[0] for line in said.splitlines()[1:]]
    assert words in said


def test_several_addresses_of_a_registry_are_kept_in_their_order() -> None:
    """As Confluent's own clients allow: separated by commas, the first one first, each with its path."""
    urls = "registry.url=https://one:1/apis/ccompat/v7/, http://[::1]:2"
    registry = config.load(environment={}, assignments=[urls]).settings.registry

    assert registry.urls == ["https://one:1/apis/ccompat/v7", "http://[::1]:2"]


def test_all_that_is_wrong_is_said_at_once(file: Callable[[str], Path]) -> None:
    """One start tells of every problem, from every source: nobody mends them one start at a time."""
    path = file("[limits]\nbody_bites = 1\nbody_bytes = 0\n")

    said = refusal("log.level=loud", config_file=path, environment={"BRIDGE_SERVER__PORT": "x"}, serving=True)

    named = [line.split()[0].rstrip(":") for line in said.splitlines()[1:]]
    assert named == ["limits.body_bites", "server.port", "limits.body_bytes", "log.level", "access.path_secrets"]


def test_contradictions_are_said_beside_unknown_keys_and_missing_secrets() -> None:
    """Values that contradict each other are told of together, and together with the rest."""
    said = refusal(
        "server.admin_port=8080", "delivery.spool_after_ms=9999", "kafka.ssl_password=k", "a.b=1", serving=True
    )

    named = [line.split()[0].rstrip(":") for line in said.splitlines()[1:]]
    assert named == ["a.b", "server.admin_port", "delivery.spool_after_ms", "kafka.ssl_password", "access.path_secrets"]


def test_a_refused_value_is_shown_with_its_source_and_its_documentation() -> None:
    """Who reads the message need not look anything up."""
    said = refusal(environment={"BRIDGE_LIMITS__HEADER_COUNT": "many"})

    assert 'limits.header_count = "many" (from environment BRIDGE_LIMITS__HEADER_COUNT)' in said
    assert config.documentation()["limits.header_count"] in said


@pytest.mark.parametrize(
    ("content", "words"), [("port = = 1", "is no TOML"), ("[server\n", "is no TOML"), (None, "No such file")]
)
def test_a_file_that_cant_be_read_is_named(tmp_path: Path, content: str | None, words: str) -> None:
    """A missing or malformed --config stops the start, by its path."""
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_text(content)

    said = refusal(config_file=path)

    assert said.startswith("--config: ")
    assert str(path) in said
    assert words in said


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "assignments",
    [
        [f"access.path_secret={SECRET}"],
        [f"access.path_secrets:{SECRET}"],
        [SECRET],
        [f"access.path_secrets={SECRET}/,short"],
        [f"access.path_secrets={SECRET}", "access.allow_unauthenticated=true"],
        [f"access.path_secrets={SECRET}", "log.level=x"],
        [f"kafka.sasl_plain_password={SECRET}"],
        [f"registry.password={SECRET}"],
        [f"registry.token={SECRET}"],
        ["registry.url=http://registry", f"registry.token={SECRET} {SECRET}"],
        [f"registry.url=http://user:{SECRET}@registry:8081"],
        [f"registry.url=http://user:a/{SECRET}@registry:8081", "log.level=x"],
        [f"registry.url=http://user:a?{SECRET}@registry:8081"],
        [f"registry.url=http://registry:8081/?token={SECRET}"],
        [f"kafka.ssl_password={SECRET}"],
        [f"registry.url=http://user:{SECRET}@registry"],
    ],
)
def test_no_refusal_betrays_a_secret(assignments: list[str]) -> None:
    """However a secret is misplaced or mistyped, the message that stops the start does not hold it."""
    said = refusal(*assignments, serving=True)

    assert SECRET not in said


@pytest.mark.parametrize(
    "text",
    [
        f"[access]\npath_secrets = '{SECRET}'",
        f"[access.path_secrets]\na = '{SECRET}'",
        f"[access]\npath_secrets = [['{SECRET}']]",
        f"[kafka]\nsasl_plain_password = ['{SECRET}']",
        f"access = '{SECRET}'",
        f"[access]\npath_secrets = ['{SECRET}'",
        f"[access]\npath_secrets = ['{SECRET}\n']",
    ],
)
def test_no_refusal_of_a_file_betrays_a_secret(file: Callable[[str], Path], text: str) -> None:
    """A secret of the wrong type, or in TOML that can't be read, is masked too."""
    assert SECRET not in refusal(config_file=file(text), serving=True)


def test_secrets_are_masked_wherever_settings_are_shown() -> None:
    """Neither what ``config`` prints nor the repr of the settings, which tracebacks may show, holds a secret."""
    loaded = config.load(
        environment={},
        assignments=[
            f"access.path_secrets={SECRET},{SECRET}2",
            "kafka.security_protocol=SASL_SSL",
            "kafka.sasl_plain_username=user",
            f"kafka.sasl_plain_password={PASSWORD}",
        ],
    )

    shown = {value.key: value.shown for value in loaded.values}
    assert (shown["access.path_secrets"], shown["kafka.sasl_plain_password"]) == ("<2 masked>", "<masked>")
    for text in (
        *shown.values(),
        repr(loaded.settings),
        repr(loaded.settings.access),
        repr(loaded.values),
        repr(loaded),
    ):
        assert SECRET not in text
        assert PASSWORD not in text


@pytest.mark.parametrize("path", ["", "/", "/healthz", "/a/b", "/callbacks", "/callbacks/chatapp/statuses"])
def test_a_health_path_may_be_any_but_the_callback_address(path: str) -> None:
    """Or none; what only begins like the callback address is another path."""
    assert config.load(environment={}, assignments=[f"server.health_path={path}"]).settings.server.health_path == path


def test_tokens_are_a_line_each_and_none_without_a_file(tmp_path: Path) -> None:
    """Blank lines and comments are passed over; what no header can carry is refused, masked."""
    file = tmp_path / "tokens"
    file.write_text("# now\na-token-nobody-may-see==\n\n another-token/nobody+sees \n")
    assert config.tokens(str(file), "key") == ["a-token-nobody-may-see==", "another-token/nobody+sees"]
    assert config.tokens("", "key") == []
    for text in ("x" * 15, "x" * 257, "a token nobody may see"):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=r"key: token 1 of 1 \(masked, \d+ characters\)") as refused:
            config.tokens(str(file), "key")
        assert text not in str(refused.value)


def test_every_key_that_holds_a_secret_is_known_as_one() -> None:
    """A new key for a password or a secret must not be forgotten among those that are masked."""
    suspects = {key for key in keys_of_the_structs() if re.search(r"(secrets?|password|token)$", key)}

    assert suspects == config.SECRET_KEYS


def access(
    text: str = "", *secrets: str, allow_unauthenticated: bool = False, path: Path | None = None
) -> config.Access:
    """``[access]`` with these secrets and this file."""
    if path is not None:
        path.write_text(text)
    return config.Access(list(secrets), "" if path is None else str(path), allow_unauthenticated, [], [])


def test_secrets_of_both_places_are_in_force(tmp_path: Path) -> None:
    """The configuration's secrets and the mounted file's are valid together; blanks and comments are no secrets."""
    mounted = f"# the old one, until Friday\n{SECRET}2\n\n  {SECRET}3  \r\n"

    found = config.path_secrets(access(mounted, SECRET, path=tmp_path / "secrets"))

    assert found == [SECRET, f"{SECRET}2", f"{SECRET}3"]


@pytest.mark.parametrize(
    "secret", ["fifteen-letters", "a" * 257, "has a space in it!", "slash/slash/slash", "ünicode-" * 3]
)
def test_a_secret_that_is_weak_or_cant_stand_in_a_url_is_refused(tmp_path: Path, secret: str) -> None:
    """Wherever it comes from, by the key of that place, and without showing it."""
    for key, given in (
        ("access.path_secrets:", access("", SECRET, secret)),
        ("access.path_secrets_file:", access(f"{SECRET}\n{secret}\n", path=tmp_path / "secrets")),
    ):
        with pytest.raises(ConfigurationError) as refused:
            config.path_secrets(given)
        said = str(refused.value)
        assert said.startswith(f"{key} secret 2 of 2 (masked, {len(secret)} characters)")
        assert secret not in said


@pytest.mark.parametrize("length", [16, 256])
def test_secrets_of_the_lengths_that_are_documented_are_taken(length: int) -> None:
    """16 to 256 characters, both ends included."""
    assert ["x" * length] == config.path_secrets(access("", "x" * length))


def test_without_a_secret_nothing_starts_unless_told_to_run_open(tmp_path: Path) -> None:
    """No secret at all, or a file with comments only, is refused by the key to set, but for ``allow_unauthenticated``."""
    for given, words in (
        (access(), r"access\.path_secrets: no secret is set"),
        (
            access("# none yet\n", path=tmp_path / "secrets"),
            r"access\.path_secrets_file: there is no secret in .*secrets; ",
        ),
        (
            access("\n", SECRET, path=tmp_path / "secrets"),
            r"access\.path_secrets_file: there is no secret in .*secrets; ",
        ),
    ):
        with pytest.raises(ConfigurationError, match=words):
            config.path_secrets(given)
    assert config.path_secrets(access(allow_unauthenticated=True)) == []


def test_open_and_secret_at_once_is_refused() -> None:
    """Whoever sets a secret does not mean to run open."""
    with pytest.raises(ConfigurationError, match=r"access\.allow_unauthenticated: true contradicts"):
        config.path_secrets(access("", SECRET, allow_unauthenticated=True))


def test_a_secrets_file_that_cant_be_read_is_named(tmp_path: Path) -> None:
    """Missing, or no text: the key, the path, never the content."""
    binary = tmp_path / "binary"
    binary.write_bytes(SECRET.encode() + b"\xff\xfe")
    for path, words in ((tmp_path / "missing", "No such file"), (binary, "it is no UTF-8 text")):
        with pytest.raises(ConfigurationError) as refused:
            config.path_secrets(config.Access([], str(path), False, [], []))
        said = str(refused.value)
        assert said.startswith(f"access.path_secrets_file: can't read {path}: {words}")
        assert SECRET not in said


def test_the_largest_body_of_real_reports_has_no_more_items_than_the_default_allows() -> None:
    """A real report has more than 210 bytes; a body with too many items is quarantined whole, and consumers miss it."""
    limits = config.load(environment={}).settings.limits
    assert limits.body_bytes / 210 < limits.body_items
