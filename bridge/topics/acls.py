"""``chatapp-bridge topics acls``: who needs which right on Kafka, and no other; printed, never applied.

A test runs the bridge on a broker that allows exactly this, and with one right less. Write and Read include Describe; an
idempotent producer needs no right of its own since Kafka 2.8, where it may write to any topic. Older brokers want
IdempotentWrite on the cluster, which is printed with ``--kafka-before-2.8``.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final, NamedTuple

import msgspec

from bridge import config

BRIDGE, OPERATOR, REPLAY, CONSUMER = "bridge", "operator", "replay", "consumer"
# With this the groups and transactional ids of ``replay`` and ``redrive`` begin.
_OWN: Final = "chatapp-bridge-"
# Kafka's name of the one resource of this kind.
_CLUSTER: Final = "kafka-cluster"
# Kafka's "User:", "Group:" and the types of an authorizer of one's own; not "spiffe://…", nor the "CN=" of a certificate.
_TYPED: Final = re.compile(r"([A-Z][A-Za-z]*):.")
_ROLES: Final = {
    BRIDGE: "the service, and `spool drain`: writes both topics; DescribeConfigs is for topics.check, which warns without it",
    OPERATOR: "`topics check|plan|apply`: makes the topics and their settings",
    REPLAY: "`replay`, `redrive`, `audit`, `tail`, `probe`: reads both topics; writes where it is told to, in transactions",
    CONSUMER: "a team that reads the events",
}


class Rule(NamedTuple):
    """What one command of kafka-acls allows: each operation on each of these resources.

    Attributes:
        kind: ``topic``, ``group``, ``transactional-id`` or ``cluster``, as the tool's options are named.
        pattern: ``literal`` or ``prefixed``.
    """

    role: str
    operations: Sequence[str]
    kind: str
    names: Sequence[str]
    pattern: str = "literal"


class Acl(msgspec.Struct, frozen=True):
    """One rule as Kafka keeps it, by the names of its protocol."""

    role: str
    principal: str
    host: str
    operation: str
    permission: str
    resource_type: str
    resource_name: str
    pattern_type: str


def rules(
    settings: config.Settings, group: str, targets: Sequence[str], *, idempotent_write: bool = False
) -> list[Rule]:
    """The least rights of every role.

    Args:
        settings: have the topics' names.
        group: of the consumer.
        targets: topics that ``replay`` may write to; ``redrive`` writes events to the one topic and its notes to the other.
        idempotent_write: whether an idempotent producer needs a right of its own.
    """
    topics = settings.topics
    both = [topics.status, topics.quarantine]
    cluster = [Rule(role, ["IdempotentWrite"], "cluster", [_CLUSTER]) for role in (BRIDGE, REPLAY)]
    return [
        Rule(BRIDGE, ["Write", "DescribeConfigs"], "topic", both),
        Rule(OPERATOR, ["Create", "Describe", "Alter", "DescribeConfigs", "AlterConfigs"], "topic", both),
        Rule(REPLAY, ["Read"], "topic", both),
        Rule(REPLAY, ["Write"], "topic", [*both, *targets]),
        Rule(REPLAY, ["Read"], "group", [_OWN], "prefixed"),
        Rule(REPLAY, ["Write"], "transactional-id", [_OWN], "prefixed"),
        Rule(CONSUMER, ["Read"], "topic", [topics.status]),
        Rule(CONSUMER, ["Read"], "group", [group]),
        *(cluster if idempotent_write else []),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Users and format."""
    for role, text in _ROLES.items():
        parser.add_argument(
            f"--{role}",
            type=_principal,
            metavar="PRINCIPAL",
            help=f"NAME, or as Kafka writes it, such as User:NAME; {text}",
        )
    parser.add_argument("--group", default="crm", help="the consumer's group (default: %(default)s)")
    parser.add_argument(
        "--target", action="append", default=[], metavar="TOPIC", help="replay may write to; repeatable"
    )
    parser.add_argument(
        "--kafka-before-2.8",
        dest="idempotent_write",
        action="store_true",
        help="also IdempotentWrite on the cluster, which idempotent producers need on brokers older than 2.8",
    )
    parser.add_argument("--host", default="*", help="from which these may connect (default: any)")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="commands, or an array for machines")


def main(options: argparse.Namespace) -> int:
    """Print the rights of the roles whose users are given; of all, with names made up, where none is."""
    settings = config.load(options.config, assignments=options.set).settings
    users = {role: getattr(options, role) for role in _ROLES if getattr(options, role)}
    users = users or {role: f"User:chatapp-{role}" for role in _ROLES}
    idempotent_write = options.idempotent_write and settings.kafka.idempotence != "false"
    least = rules(settings, options.group, options.target, idempotent_write=idempotent_write)
    chosen = [rule for rule in least if rule.role in users]
    if options.format == "json":
        acls = [acl for rule in chosen for acl in _acls(rule, users[rule.role], options.host)]
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(acls)).decode() + "\n")
        return 0
    servers = ",".join(settings.kafka.bootstrap_servers)
    sys.stdout.write("# To be run by an administrator, with --command-config FILE where the brokers want a login.\n\n")
    for number, role in enumerate(users):
        sys.stdout.write("\n" * bool(number) + f"# {role}: {_ROLES[role]}\n")
        for rule in chosen:
            if rule.role == role:
                sys.stdout.write(_command(rule, users[role], options.host, servers) + "\n")
    return 0


def _principal(text: str) -> str:
    """A principal as Kafka's tools take it, of that or of a mere name; a certificate's is ``User:CN=…``."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; write the user's name")
    return text if _TYPED.match(text) else f"User:{text}"


def _acls(rule: Rule, principal: str, host: str) -> Iterator[Acl]:
    for name, operation in product(rule.names, rule.operations):
        kind = rule.kind.replace("-", "_").upper()
        yield Acl(rule.role, principal, host, _constant(operation), "ALLOW", kind, name, rule.pattern.upper())


def _constant(operation: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in operation).lstrip("_").upper()


def _command(rule: Rule, principal: str, host: str, servers: str) -> str:
    parts = ["kafka-acls", "--bootstrap-server", servers, "--add", "--allow-principal", principal, "--allow-host", host]
    parts += [part for operation in rule.operations for part in ("--operation", operation)]
    parts += ["--resource-pattern-type", rule.pattern] if rule.pattern != "literal" else []
    names = [[f"--{rule.kind}", name] if name != _CLUSTER else [f"--{rule.kind}"] for name in rule.names]
    parts += [part for name in names for part in name]
    return shlex.join(parts)
