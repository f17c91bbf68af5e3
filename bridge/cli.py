"""``chatapp-bridge``: every command, thin: parse, call, print."""

import argparse
import asyncio
import re
import sys
from collections.abc import Coroutine, Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from bridge import config
from bridge.compiled import COMPILED
from bridge.errors import ConfigurationError
from bridge.operate import console

_T = TypeVar("_T")
# The lab's commands: the module of each, and its help.
_LAB: Final = {
    "simulate": ("bridge.lab.simulate.run", "push as the provider does, at any deployment"),
    "demo": ("bridge.lab.demo.command", "the whole story on this machine: Kafka, the bridge, a provider, consumers"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done; 1 it failed, or what it looked at is not as it should be; 2 wrong usage or configuration.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)

    def perform() -> int:
        options = _parser(words).parse_args(words)
        return int(options.handler(options))

    return console.ended(perform)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors don't repeat what could be a secret that slipped out of its place."""

    def error(self, message: str) -> NoReturn:
        what, unrecognized, parts = message.partition("unrecognized arguments: ")
        if unrecognized:
            shown = [part if part.startswith("-") else "<masked>" for part in parts.split()]
            message = what + unrecognized + " ".join(shown)
        super().error(re.sub(r"=[^\s']+", "=<masked>", message))


class _Version(argparse.Action):
    """``--version``: looked up when it is asked for, not at each start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        import platform

        import confluent_kafka

        compiled = "with" if COMPILED else "without"
        python, librdkafka = platform.python_version(), confluent_kafka.libversion()[0]
        beside = f"Python {python}, aiokafka {version('aiokafka')}, librdkafka {librdkafka}"
        console.show(f"{parser.prog} {version('chatapp-bridge')}, {compiled} its compiled part; {beside}")
        parser.exit()


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command line ``words``, which say whether the lab is needed."""
    parser = _Parser(prog="chatapp-bridge", description=__import__("bridge").__doc__)
    parser.add_argument("--version", action=_Version, nargs=0, help="what runs: print it, and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    configured = _Parser(add_help=False)
    configured.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with any of the keys")
    configured.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="one key; repeatable"
    )

    serve = commands.add_parser("serve", parents=[configured], help="take callbacks until SIGTERM")
    serve.set_defaults(handler=_serve)
    show = commands.add_parser(
        "config", parents=[configured], help="print the values in force and where each came from"
    )
    show.set_defaults(handler=_config)

    from bridge.operate import schema as schema_command
    from bridge.operate import spool as spool_command
    from bridge.operate import status as status_command
    from bridge.operate import topics as topics_command
    from bridge.operate.doctor.options import add_doctor
    from bridge.operate.options import add_commands
    from bridge.operate.replay.options import add_replay

    topics = commands.add_parser(
        "topics", help="the topics as they are declared: look, plan, apply; and who needs which right"
    )
    topics_command.add_arguments(topics, configured)
    topics.set_defaults(handler=topics_command.main)

    status = commands.add_parser(
        "status", parents=[configured], help="how a running bridge is: 0 safe, 1 not, 2 no answer"
    )
    status_command.add_arguments(status)
    status.set_defaults(handler=status_command.main)

    spool = commands.add_parser("spool", help="what waits on disk: look at it, copy it, bring it to Kafka")
    spool_command.add_arguments(spool, configured)
    spool.set_defaults(handler=spool_command.main, schema_ids=_schema_ids)

    add_replay(commands, configured)

    schema = commands.add_parser("schema", help="the event's Avro schema: check it, register it, show what differs")
    schema_command.add_arguments(schema, configured)
    schema.set_defaults(handler=schema_command.main)

    probe = commands.add_parser("probe", parents=[configured], help="push one report to a deployment and read it back")
    probe.add_argument("--url", help="of the deployment, with or without its secret (default: this machine)")
    probe.add_argument(
        "--timeout", type=float, default=30.0, metavar="SEC", help="for all of it (default: %(default)g)"
    )
    probe.add_argument(
        "--ca-file", type=Path, metavar="PEM", help="authorities to trust for https (default: the system's)"
    )
    probe.set_defaults(handler=_probe)

    add_commands(commands, configured)
    add_doctor(commands, configured)

    command = next((word for word in words if not word.startswith("-")), None)
    for name, (module, text) in _LAB.items():
        _add_of_lab(commands, name, module, text, wanted=name == command)
    return parser


def _add_of_lab(commands: Any, name: str, module: str, text: str, *, wanted: bool) -> None:
    """A command of the lab: its module is imported only for the command itself, and the image does not contain it."""
    if wanted and find_spec("bridge.lab") is not None:
        program = import_module(module)
        parser = commands.add_parser(name, help=text)
        program.add_arguments(parser)
        parser.set_defaults(handler=program.main)
    else:
        parser = commands.add_parser(name, help=text, add_help=False, prefix_chars="\0")
        parser.add_argument("rest", nargs=argparse.REMAINDER)
        parser.set_defaults(handler=_without_lab, name=name)


def _without_lab(options: argparse.Namespace) -> int:
    raise ConfigurationError(
        f"{options.name}: the image does not contain this command; run it where the package is installed from its wheel "
        "or from a checkout"
    )


def _load(options: argparse.Namespace, *, serving: bool = False) -> config.Loaded:
    return config.load(options.config, assignments=options.set, serving=serving)


def _serve(options: argparse.Namespace) -> int:
    from bridge.observe import logs
    from bridge.service import Service

    settings = _load(options, serving=True).settings
    tokens = config.tokens(settings.server.admin_token_file, "server.admin_token_file")
    logs.configure(settings.log, [*config.path_secrets(settings.access), *tokens])
    _run(Service(settings).run())
    return 0


def _schema_ids(settings: config.Settings) -> Any:
    """For a delivery without the service."""
    from bridge.registry.ids import RegisteredIds

    return RegisteredIds.of(settings)


def _config(options: argparse.Namespace) -> int:
    loaded = _load(options)
    width = max(len(value.key) + len(value.shown) for value in loaded.values)
    for value in loaded.values:
        text = f"{value.key} = {value.shown}"
        console.show(f"{text:<{min(width + 3, 72)}}  # {value.source}")
    return 0


def _probe(options: argparse.Namespace) -> int:
    from bridge.operate import probe

    settings = _load(options, serving=True).settings
    _run(probe.run(settings, probe.callback_url(settings, options.url), options.timeout, options.ca_file))
    return 0


def _run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run on uvloop, where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(coroutine)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)
