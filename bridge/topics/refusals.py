"""Why Kafka refuses a topic or its settings, and what to write so that it does not, in words."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR = 37, 38
# INVALID_CONFIG, INVALID_REQUEST and POLICY_VIOLATION: a setting may be the cause.
_OF_A_SETTING: Final = {40, 42, 44}
# TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED.
_NOT_ALLOWED: Final = {29, 31}
EXTERNAL_REMEDY: Final = '; if others manage the topics, set topics.manage = "external"'
_ANY_SETTING: Final = (
    '; if the cluster\'s policy is about a setting, leave it to the cluster: write "SETTING" = "" under the topic\'s config '
    "in topics.file"
)
_REPLICATION: Final = '; to leave it to the cluster, write replication_factor = "" under the topic in topics.file'
_NO_SETTING: Final = (
    "; Kafka refuses the topic without any setting, too: look at partitions, and leave the replication to the cluster by "
    'replication_factor = "" under the topic in topics.file'
)

IsRefused = Callable[[Mapping[str, str]], Awaitable[bool]]
"""Asks Kafka, without changing anything, whether it refuses these settings."""


async def remedy(code: int, reason: str, config: Mapping[str, str], is_refused: IsRefused) -> str:
    """What to do about a refusal of ``config``, to be put behind its reason.

    Where Kafka's words name no setting, each is tried alone, to find the one that is refused.
    """
    named = settings_in(reason, config)
    if code == INVALID_REPLICATION_FACTOR:
        todo = _REPLICATION
    elif code == INVALID_PARTITIONS:
        todo = "; declare another number of partitions in topics.file"
    elif code in _NOT_ALLOWED:
        todo = "; grant this user the rights that `chatapp-bridge topics acls --operator NAME` prints"
    elif named or code not in _OF_A_SETTING:
        todo = leave(named)
    elif await is_refused({}):
        todo = _NO_SETTING
    else:
        todo = leave([option for option, value in config.items() if await is_refused({option: value})]) or _ANY_SETTING
    return todo + EXTERNAL_REMEDY


def settings_in(reason: str, config: Mapping[str, str]) -> list[str]:
    """Those of the settings that Kafka's words name: "delete.retention.ms" does not name "retention.ms"."""
    # A full stop may end the sentence.
    return [option for option in config if re.search(rf"(?<![\w.-]){re.escape(option)}(?![\w-]|\.\w)", reason)]


def leave(settings: Iterable[str]) -> str:
    """How these settings are left to the cluster; empty for none."""
    options = ", ".join(f'"{option}" = ""' for option in settings)
    return f"; to leave it to the cluster, write {options} under the topic's config in topics.file" if options else ""
