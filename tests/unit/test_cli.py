"""The command: what it prints, how it ends, and what it never says."""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from bridge import cli, config
from bridge.compiled import module
from bridge.errors import BridgeError, ConfigurationError, TopicsError
from bridge.service import Service

SECRET = "a-secret-nobody-may-see-1"  # noqa: S105 - opens nothing
PASSWORD = "pass-phrase-of-the-tests"  # noqa: S105 - opens nothing


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests is none of theirs."""
    for key in config.documentation():
        monkeypatch.delenv("BRIDGE_" + key.upper().replace(".", "__"), raising=False)


def test_config_prints_every_value_with_its_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line a key, in the order of bridge.toml, with where its value came from."""
    file = tmp_path / "own.toml"
    file.write_text("[server]\nbacklog = 7\n")
    monkeypatch.setenv("BRIDGE_KAFKA__BOOTSTRAP_SERVERS", "a:1,b:2")

    assert cli.main(["config", "--config", str(file), "--set", "log.level=debug"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" = ")[0] for line in lines] == list(config.documentation())
    assert {re.sub(" +", " ", line) for line in lines} >= {
        f"server.backlog = 7 # {file}",
        'kafka.bootstrap_servers = ["a:1","b:2"] # environment BRIDGE_KAFKA__BOOTSTRAP_SERVERS',
        'log.level = "debug" # --set',
        "server.port = 8080 # default",
    }


def test_config_masks_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    """It says that there are secrets, and how many, so that it can be sent to whoever helps."""
    sasl = ["kafka.security_protocol=SASL_SSL", "kafka.sasl_plain_username=u", f"kafka.sasl_plain_password={PASSWORD}"]
    settings = [f"access.path_secrets={SECRET},{SECRET}2", *sasl]

    assert cli.main(["config", *(part for each in settings for part in ("--set", each))]) == 0

    said = capsys.readouterr().out
    assert "access.path_secrets = <2 masked>" in said
    assert "kafka.sasl_plain_password = <masked>" in said
    assert SECRET not in said
    assert PASSWORD not in said


def test_serve_refuses_to_start_with_error_codes_that_can_t_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it listens anywhere; the message names the key, the file and the entry."""
    monkeypatch.setattr(Service, "run", None)
    file = tmp_path / "codes.toml"
    file.write_text("[codes]\n7 = { category = 'POLICE', retry = 'NO' }\n")
    assignments = ["access.allow_unauthenticated=true", f"events.error_codes={file}"]
    assert cli.main(["serve", *(word for each in assignments for word in ("--set", each))]) == 2
    said = capsys.readouterr().err
    assert f"events.error_codes: {file} can't be used:" in said
    assert "codes.7: category is 'POLICE'" in said


def test_serve_refuses_to_start_without_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, the key to set, how to make a secret, and how to run open on purpose."""
    assert cli.main(["serve"]) == 2

    said = capsys.readouterr().err
    assert "access.path_secrets: no secret is set" in said
    assert "openssl rand" in said
    assert "access.allow_unauthenticated=true" in said


@pytest.mark.parametrize("command", [["serve"], ["config"], ["topics", "apply"], ["topics", "check"]])
def test_a_wrong_setting_ends_every_command_with_2(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything else is done, with all that is wrong, on standard error."""
    assert cli.main([*command, "--set", "server.port=x", "--set", "a.b=1"]) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert "  server.port = " in said.err
    assert "  a.b (from --set)" in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", SECRET],
        ["serve", f"access.path_secrets={SECRET}"],
        ["serve", f"--access.path_secrets={SECRET}"],
        ["serve", "--set", f"access.path_secrets={PASSWORD}", SECRET],
        ["serve", "--set", SECRET],
        ["serve", "--set", f"access.path_secrets:{SECRET}"],
        ["serve", "--set", f"access.path_secrets={SECRET}/"],
        ["serve", "--set", f"access.path_secret={SECRET}"],
        ["serve", "--set", f"access.path_secrets={SECRET}", "--set", "access.allow_unauthenticated=true"],
        [f"access.path_secrets={SECRET}"],
    ],
)
def test_no_error_betrays_a_secret(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """However the command line is wrong: code 2, and the secret is not repeated into a terminal's or an orchestrator's log."""
    try:
        code = cli.main(arguments)
    except SystemExit as ended:
        code = int(str(ended.code))

    said = capsys.readouterr()
    assert code == 2
    assert said.err
    for secret in (SECRET, PASSWORD):
        assert secret not in said.err + said.out


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigurationError("what"), 2), (TopicsError("what"), 1), (BridgeError("what"), 1)]
)
def test_a_failure_is_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BridgeError, code: int
) -> None:
    """What the bridge raises on purpose is said without a traceback: 2 for wrong settings, 1 for the rest."""

    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_config", fail)

    assert cli.main(["config"]) == code
    assert capsys.readouterr().err == "chatapp-bridge: what\n"


@pytest.mark.parametrize(("setting", "word"), [("0", "without"), ("", "with" if module else "without")])
def test_the_version_says_whether_the_compiled_part_is_in_use(setting: str, word: str) -> None:
    """As it would be for ``serve``, with the same environment; one line, for a report, with Python and Kafka's clients."""
    command = [sys.executable, "-m", "bridge", "--version"]
    environment = os.environ | {"BRIDGE_COMPILED": setting}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    beside = f"Python {platform.python_version()}, aiokafka {version('aiokafka')}, librdkafka "
    of_ours, _, library = said.partition(beside)
    assert of_ours == f"chatapp-bridge {version('chatapp-bridge')}, {word} its compiled part; "
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", library)


def test_python_m_bridge_is_the_command() -> None:
    """Installed or not: the module runs as the command does, and its exit code is the command's."""
    ran = subprocess.run(
        [sys.executable, "-m", "bridge", "serve", "--set", "log.level=loud"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 2
    assert ran.stderr.startswith("chatapp-bridge: ")
    assert "Traceback" not in ran.stderr


def test_who_reads_no_further_sees_no_traceback() -> None:
    """``chatapp-bridge config | head``: the exit code is a shell's for SIGPIPE."""
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [sys.executable, "-m", "bridge", "config"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (141, "") == (ran.returncode, ran.stderr)


def test_a_full_disk_behind_standard_output_ends_a_command_with_words() -> None:
    """Not by a traceback."""
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "bridge", "config"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ran.returncode, ran.stderr) == (1, "chatapp-bridge: standard output: No space left on device\n")


def modules_after(*words: str) -> set[str]:
    """The package's modules that a process has imported when the command is done."""
    code = "import sys, bridge.service; from bridge import cli; cli.main(sys.argv[1:]); print('modules', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return {name for name in done.stdout.splitlines()[-1].split() if name.startswith("bridge.")}


def test_the_service_and_its_commands_never_import_the_lab() -> None:
    """The image does not contain it."""
    found = modules_after("config")
    assert "bridge.service" in found
    assert {name for name in found if name.startswith("bridge.lab")} == set()


@pytest.fixture(scope="module")
def without_lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it is in the image."""
    home = tmp_path_factory.mktemp("image")
    package = Path(cli.__file__).parent
    shutil.copytree(package, home / "bridge", ignore=shutil.ignore_patterns("lab", "__pycache__"))
    for name in ("avro", "config"):
        shutil.copytree(package.parent / name, home / name)
    return home


@pytest.mark.parametrize(
    "words", [("demo",), ("simulate", "--url", "http://localhost:1", "-x"), ("simulate", "--help")]
)
def test_without_the_lab_its_commands_say_where_to_run_them(without_lab: Path, words: tuple[str, ...]) -> None:
    """Whatever arguments they have."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge", *words], cwd=without_lab, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"chatapp-bridge: {words[0]}: the image does not contain this command; run it where")


def test_without_the_lab_all_else_works(without_lab: Path) -> None:
    """The help lists every command."""
    for words in (["config"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "bridge", *words], cwd=without_lab, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert {"serve", "replay", "demo", "simulate"} <= set(re.findall(r"^    (\S+)", done.stdout, re.MULTILINE))
