"""``chatapp-bridge schema``: its arguments; what it does is in ``schema_actions``.

``check`` and ``diff`` only read; ``register`` may run at every deployment, beside others and beside a running bridge: it does
what is missing, and says what it did. The service itself registers nothing.
"""

import argparse
import asyncio
from typing import Final

from bridge import config

EXIT_CODES: Final = (
    "exit codes: 0 it is as it should be; 1 it differs, is not compatible, or the registry failed; 2 wrong usage"
)


def add_arguments(parser: argparse.ArgumentParser, configured: argparse.ArgumentParser) -> None:
    """The actions and their options; ``configured`` brings those of the configuration."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    check = actions.add_parser(
        "check",
        parents=[configured],
        help="can it stand beside every version released, and every one at the registry",
        epilog=EXIT_CODES,
    )
    check.add_argument("--offline", action="store_true", help="leave the registry out, also where registry.url is set")
    check.set_defaults(schema_action="check")
    register = actions.add_parser(
        "register",
        parents=[configured],
        help="register it where it isn't; for each deployment, before the bridge is started",
        epilog=EXIT_CODES,
    )
    register.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    register.set_defaults(schema_action="register")
    diff = actions.add_parser(
        "diff",
        parents=[configured],
        help="what differs from the registry's latest version, field by field",
        epilog=EXIT_CODES,
    )
    diff.set_defaults(schema_action="diff")


def main(options: argparse.Namespace) -> int:
    """Perform the action; the exit code.

    Raises:
        ConfigurationError: it needs a registry and none is configured, or its settings can't be used.
        RegistryError: the registry refuses or can't be had; nothing is known to be done.
    """
    from bridge.operate import schema_actions  # noqa: PLC0415  the other commands start quickly

    settings = config.load(options.config, assignments=options.set).settings
    if options.schema_action == "check":
        return asyncio.run(schema_actions.check(settings, offline=options.offline))
    if options.schema_action == "register":
        return asyncio.run(schema_actions.register(settings, dry_run=options.dry_run))
    return asyncio.run(schema_actions.diff(settings))
