"""What ``topics apply`` would do, reckoned from how the topics are: nothing here changes anything.

Never deleted: a topic, a partition, a record. Never touched: a setting that is not declared.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from bridge.topics.inspect import Difference, Finding, is_weaker
from bridge.topics.spec import DeclaredTopic

CREATE: Final = "create"

_MOVES = (
    "keys move to other partitions: of a message whose states are on both sides of the change a consumer may read the later "
    "first, and has to go by status_rank, as it should anyway"
)
_REASSIGN = (
    "is not changed here, as it moves data: write a plan with all partitions and their replicas, and run "
    "kafka-reassign-partitions --bootstrap-server … --reassignment-json-file … --execute"
)


EXTERNAL: Final = 'topics.manage is "external", so the owner of the topics decides'


class Allowed(msgspec.Struct, frozen=True):
    """What the user asked for beside what is safe."""

    add_partitions: bool = False
    weaker: bool = False


class Step(msgspec.Struct, frozen=True):
    """One thing to do to a topic, or, with ``refused``, to leave undone, for the reason there.

    Attributes:
        what: ``create``, ``partitions``, ``replication_factor``, or a setting's name.
        remark: what to know of a step that is taken.
        weaker: what is found can cost records, or their order, that are kept as declared.
    """

    topic: DeclaredTopic
    what: str
    found: str = ""
    declared: str = ""
    remark: str = ""
    refused: str = ""
    weaker: bool = True


def plan(findings: Sequence[Finding], allowed: Allowed) -> list[Step]:
    """The steps, topic by topic, from how the topics are to how they are declared."""
    return [step for finding in findings for step in _steps(finding, allowed)]


def _steps(finding: Finding, allowed: Allowed) -> Iterator[Step]:
    if not finding.exists:
        yield Step(finding.topic, CREATE, refused=EXTERNAL if finding.topic.external else "")
        return
    for difference in finding.differences:
        refused, remark = _judged(finding, difference, allowed)
        step = Step(finding.topic, difference.what, difference.found, difference.declared, remark, refused)
        yield msgspec.structs.replace(step, weaker=difference.weaker and difference.expected)
    for setting in finding.not_shown:
        yield Step(finding.topic, setting.what, "unknown", setting.declared, refused=setting.why, weaker=False)


def _judged(finding: Finding, difference: Difference, allowed: Allowed) -> tuple[str, str]:
    """Why not, or else what to know."""
    if finding.topic.external:
        return EXTERNAL, ""
    if difference.what == "partitions":
        return _judged_partitions(difference, allowed)
    if difference.what == "replication_factor":
        return _REASSIGN, ""
    if difference.what == "min.insync.replicas" and int(difference.declared) > finding.replication:
        return (
            f"nothing could be written any more, with {finding.replication} replicas: raise replication_factor first",
            "",
        )
    loses = _what_it_loses(difference)
    if loses and not allowed.weaker:
        return f"{loses}: needs --allow-weaker", ""
    return "", loses


def _judged_partitions(difference: Difference, allowed: Allowed) -> tuple[str, str]:
    if int(difference.declared) < int(difference.found):
        return "partitions can't be taken away: declare as many as there are", ""
    return ("", _MOVES) if allowed.add_partitions else (f"needs --add-partitions: {_MOVES}", "")


def _what_it_loses(difference: Difference) -> str:
    """What would be less safe than it is; empty where nothing would."""
    what, declared, found = difference.what, difference.declared, difference.found
    if what == "cleanup.policy" and "delete" not in found:
        return "records older than the topic's retention would be deleted, which compaction keeps"
    if not is_weaker(what, found, declared):
        return ""
    if what.startswith("retention."):
        return "records that are kept now would be deleted"
    if what == "max.message.bytes" or what.startswith("message.timestamp."):
        return "records that are taken now would be refused"
    return "acknowledged records could be lost that are safe now"
