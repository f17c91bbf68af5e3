"""``chatapp-bridge topics``: look at the topics, bring them to what is declared, say who needs which right.

Exit codes: ``check`` 0 where all is as declared, else 1; ``apply`` 0 where nothing is weaker than declared afterwards, else 1;
``plan`` 0 where there is nothing to do and ``apply`` would say 0, else 1; 2 for a wrong usage or configuration, as everywhere.
"""

import argparse
import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import groupby
from typing import Any

from bridge import config
from bridge.errors import TopicsError
from bridge.kafka.admin import Admin
from bridge.kafka.librdkafka import librdkafka_arguments
from bridge.operate import console
from bridge.topics import acls
from bridge.topics import inspect as topics
from bridge.topics.plan import CREATE, EXTERNAL, Allowed, Step, plan
from bridge.topics.refusals import EXTERNAL_REMEDY, remedy
from bridge.topics.spec import DeclaredTopic, declared_topics

_CHANGE_SECONDS = 30.0
# Until every broker knows of what was done.
_SEEN_SECONDS, _AGAIN_SECONDS = 5.0, 0.2
# UNSUPPORTED_VERSION, and librdkafka's own code where the broker does not offer the request.
_NOT_OFFERED = {35, -165}
_NOT_INCREMENTAL = (
    "; this Kafka does not offer IncrementalAlterConfigs, which changes one setting and no other (Kafka 2.3): change the "
    f"settings by the cluster's own means, or write the present values into topics.file{EXTERNAL_REMEDY}"
)
_silent = logging.getLogger(f"{__name__}.client")
_silent.setLevel(logging.CRITICAL + 1)


def add_arguments(parser: argparse.ArgumentParser, configured: argparse.ArgumentParser) -> None:
    """The actions and their options; ``configured`` brings those of the configuration."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, perform: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, parents=[configured], help=text, description=text)
        added.set_defaults(topics_action=perform)
        return added

    action("check", _of(_check), "show how the topics differ from what is declared; exit 1 where they do")
    for name, perform, text in (
        (
            "plan",
            _plan,
            "show what apply would do with the same options, and change nothing; exit 1 where it is something",
        ),
        ("apply", _apply, "create what is missing, set what is declared; never delete, never weaken unasked"),
    ):
        added = action(name, _of(perform), text)
        added.add_argument("--single-broker", action="store_true", help="lower what a small cluster can't give")
        added.add_argument("--add-partitions", action="store_true", help="add those that are missing: keys will move")
        added.add_argument(
            "--allow-weaker", action="store_true", help="also what deletes records or makes them less safe"
        )
    acls.add_arguments(action("acls", acls.main, "print the least rights of each user, as kafka-acls commands or JSON"))


def main(options: argparse.Namespace) -> int:
    """Perform the action; the exit code.

    Raises:
        ConfigurationError: a setting, or a key of ``topics.file``, can't be used.
        TopicsError: Kafka does not answer, or refuses; says what was done before.
    """
    return int(options.topics_action(options))


def _of(perform: Callable[[argparse.Namespace, config.Settings], Coroutine[Any, Any, int]]) -> Callable[..., int]:
    def run(options: argparse.Namespace) -> int:
        return asyncio.run(perform(options, config.load(options.config, assignments=options.set).settings))

    return run


def _shape(topic: DeclaredTopic) -> str:
    replication = topic.replication_factor or "as the cluster decides"
    return f"{topic.partitions} partitions, replication {replication}"


# --- look -------------------------------------------------------------------------------------------------------------


async def _check(_options: argparse.Namespace, settings: config.Settings) -> int:
    declared = declared_topics(settings.topics).values()
    async with topics.admin_client(settings.kafka) as client:
        findings = await topics.inspect(client, list(declared))
    for finding in findings:
        name = finding.topic.name
        if not finding.exists:
            console.show(f"{name}: missing ({_shape(finding.topic)})")
        elif not finding.differences:
            console.show(f"{name}: as declared ({_shape(finding.topic)})")
        else:
            console.show(f"{name}: differs from what is declared")
            for difference in finding.differences:
                console.show(f"  {difference}{' (weaker)' if difference.weaker else ''}{_decided(difference)}")
        for setting in finding.not_shown:
            console.show(f"  {setting}")
    return int(any(_fails(finding) for finding in findings))


def _fails(finding: topics.Finding) -> bool:
    """Whether ``check`` fails: of a topic that others manage only by what is missing, or weaker than expected."""
    return bool(finding.weaker) or bool(finding.differences and not finding.topic.external)


def _decided(difference: topics.Difference) -> str:
    return "" if difference.expected else ", as the topic's owner decided"


async def _plan(options: argparse.Namespace, settings: config.Settings) -> int:
    async with topics.admin_client(settings.kafka) as client:
        declared = await _within_reach(client, settings, lowered=options.single_broker)
        steps = await _planned(client, declared, options)
    _show(declared, steps, done=False)
    return int(any(step.weaker or not step.refused for step in steps))


# --- change -----------------------------------------------------------------------------------------------------------


async def _apply(options: argparse.Namespace, settings: config.Settings) -> int:
    async with topics.admin_client(settings.kafka) as client:
        declared = await _within_reach(client, settings, lowered=options.single_broker)
        steps = await _planned(client, declared, options)
        if settings.topics.manage == "external":
            console.show(f"nothing is created or changed here: {EXTERNAL}")
        taken = [step for step in steps if not step.refused]
        created = await topics.create(client, [step.topic for step in taken if step.what == CREATE])
        await topics.add_partitions(
            client, {step.topic.name: int(step.declared) for step in taken if step.what == "partitions"}
        )
        changes: dict[str, dict[str, str]] = defaultdict(dict)
        for step in taken:
            if step.what not in {CREATE, "partitions"}:
                changes[step.topic.name][step.what] = step.declared
        if changes:
            await _set(settings.kafka, changes)
        await _seen(client, declared, options)
    as_created = {topic.name: topic for topic in created}
    _show([as_created.get(topic.name, topic) for topic in declared], steps, done=True)
    return int(any(step.weaker and step.refused for step in steps))


async def _seen(client: Admin, declared: Sequence[DeclaredTopic], options: argparse.Namespace) -> None:
    """Wait until the brokers tell of what was done: each hears of it in its own time.

    Raises:
        TopicsError: they do not.
    """
    deadline = time.monotonic() + _SEEN_SECONDS
    while left := [step for step in await _planned(client, declared, options) if not step.refused]:
        if time.monotonic() > deadline:
            raise TopicsError(
                f"Kafka took what was asked for topic {left[0].topic.name}, and does not show it ({left[0].what}); does this "
                "user have the right Describe? See `chatapp-bridge topics check`"
            )
        await asyncio.sleep(_AGAIN_SECONDS)


async def _set(kafka: config.Kafka, changes: dict[str, dict[str, str]]) -> None:
    """Set these and no others: an incremental change, which aiokafka's requests do not have.

    Raises:
        TopicsError: Kafka refuses a topic's; says why, and what to do.
    """
    for topic, settings in changes.items():
        error = await asyncio.to_thread(_alter, kafka, topic, settings)
        if error is None:
            continue

        async def is_refused(some: Mapping[str, str], topic: str = topic) -> bool:
            return bool(some) and await asyncio.to_thread(_alter, kafka, topic, some, validate_only=True) is not None

        code, reason = error
        todo = _NOT_INCREMENTAL if code in _NOT_OFFERED else await remedy(code, reason, settings, is_refused)
        raise TopicsError(f"topic {topic} could not be changed: {reason}{todo}")


def _alter(
    kafka: config.Kafka, topic: str, settings: Mapping[str, str], *, validate_only: bool = False
) -> tuple[int, str] | None:
    """Set them, or only ask whether they could be set: None, or the error's code and reason."""
    from confluent_kafka import KafkaException  # noqa: PLC0415 - an import of a tenth of a second, for this alone
    from confluent_kafka.admin import (  # noqa: PLC0415 - it names no exports
        AdminClient,
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )

    entries = [
        ConfigEntry(option, value, incremental_operation=AlterConfigOpType.SET) for option, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient(librdkafka_arguments(kafka), logger=_silent)
    admin.poll(0)  # only this asks for a token, where there is one; until it is there nothing connects
    answers = admin.incremental_alter_configs([resource], request_timeout=_CHANGE_SECONDS, validate_only=validate_only)
    try:
        for future in answers.values():
            future.result(_CHANGE_SECONDS)
    except KafkaException as error:
        return error.args[0].code(), error.args[0].str()
    return None


async def _within_reach(client: Admin, settings: config.Settings, *, lowered: bool) -> Sequence[DeclaredTopic]:
    """The declared topics, lowered to what the cluster can give where that is asked for.

    Raises:
        TopicsError: it can't give as many replicas, and lowering is not asked for.
    """
    declared = list(declared_topics(settings.topics).values())
    brokers = await topics.brokers(client)
    lines = []
    for topic in declared:
        if not topic.external and (topic.replication_factor or 0) > brokers:
            smaller = topic.lowered_to(brokers)
            lines.append(
                f"{topic.name}: this cluster has {brokers} broker(s), which can't give what is declared: "
                f"replication_factor {topic.replication_factor} -> {smaller.replication_factor}, min.insync.replicas "
                f"{topic.config.get('min.insync.replicas', '1')} -> {smaller.config['min.insync.replicas']}"
            )
    for line in lines:
        console.show(line)
    if lines and not lowered:
        raise TopicsError(
            "nothing was changed; use a larger cluster, or lower it where losing records does no harm: --single-broker, or in "
            "the chart topicsJob.singleBroker=true"
        )
    return [topic.lowered_to(brokers) for topic in declared] if lowered else declared


async def _planned(client: Admin, declared: Sequence[DeclaredTopic], options: argparse.Namespace) -> list[Step]:
    allowed = Allowed(add_partitions=options.add_partitions, weaker=options.allow_weaker)
    return plan(await topics.inspect(client, declared), allowed)


# --- show -------------------------------------------------------------------------------------------------------------


def _show(declared: Sequence[DeclaredTopic], steps: Sequence[Step], *, done: bool) -> None:
    by_topic = {name: list(of) for name, of in groupby(steps, lambda step: step.topic.name)}
    for topic in declared:
        of = by_topic.get(topic.name, [])
        if not of:
            console.show(f"{topic.name}: as declared ({_shape(topic)})")
        elif of[0].what == CREATE and of[0].refused:
            console.show(f"{topic.name}: missing ({_shape(topic)}): {of[0].refused}")
        elif of[0].what == CREATE:
            console.show(f"{topic.name}: {'created' if done else 'to create'} ({_shape(topic)})")
            for option in of[0].topic.config:
                console.show(f"  {option}: {topic.config.get(option, 'left out, as this Kafka does not know it')}")
        else:
            changed = any(not step.refused for step in of)
            what = (
                ("changed" if done else "to change")
                if changed
                else ("left as it is" if done else "to be left as it is")
            )
            console.show(f"{topic.name}: {what}")
            for step in of:
                console.show(f"  {_words(step)}")


def _words(step: Step) -> str:
    if step.refused:
        return f"{step.what}: stays {step.found} (declared {step.declared}): {step.refused}"
    return f"{step.what}: {step.found} -> {step.declared}" + (f"; {step.remark}" if step.remark else "")
