"""A campaign: messages, what becomes of each, and the pushes that report it.

The same seed gives the same bytes. A message is sent, then delivered, then read, or it fails. Its reports are
put on a line of time whose unit is one message (a new one starts at every unit), so that the lives of many
messages interleave however fast they are pushed: a Read follows its Sent some hundred messages later. What is
due is cut into pushes, and the pushes are paced.

Every telephone number is fictitious: +1 NPA 555-01xx is reserved for that.
"""

import heapq
import itertools
import math
import random
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from bridge.errors import ConfigurationError
from bridge.lab.simulate.identity import event_id, raw_sha256
from bridge.lab.simulate.oddities import ODDITIES, UNDECODABLE, Draft, add_text, escape_text, truncated_body
from bridge.lab.simulate.push import Push, Report

MAX_REPORTS_PER_CALLBACK = 1000

_LAG = {"Sent": 3.0, "Delivered": 20.0, "Read": 120.0, "Failed": 15.0}
"""Mean time from the stage before, in messages started."""
_OTHER_LAG = 30.0
_DUPLICATE_LAG = 50.0
_MESSAGE_GAP_MS = 4

_FAILURES = (
    # Code, description, weight: what the provider's code table calls them, and about how often they are seen.
    ("131026", "Receiver is incapable of receiving this message(Message Undeliverable.)", 50),
    ("131049", "This message was not delivered to maintain healthy ecosystem engagement.", 20),
    ("131047", "Re-engagement message. More than 24 hours have passed since the last reply.", 8),
    ("131050", "User has stopped marketing messages from this business.", 6),
    ("131056", "(Business Account, Consumer Account) pair rate limit hit.", 3),
    ("130429", "Rate limit hit.", 3),
    ("130472", "User's number is part of an experiment.", 3),
    ("131042", "Business eligibility payment issue.", 2),
    ("131048", "Spam rate limit hit.", 2),
    ("132000", "Number of parameters does not match the expected number of params.", 2),
    ("132015", "Template is paused.", 2),
    ("131053", "Media upload error.", 2),
    ("131000", "Something went wrong.", 2),
    ("131016", "Service unavailable.", 1),
    ("368", "Temporarily blocked for policies violations.", 1),
    ("190", "Access token has expired.", 1),
    ("SRVC_0107", "The channel refused the message.", 1),
)
_FAILURE_WEIGHTS = [weight for _, _, weight in _FAILURES]
_UNKNOWN_STATUSES = ("played", "warning", "clicked")
_CONVERSATIONS = ("service", "utility", "marketing", "authentication")


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """How often what happens: shares from 0 to 1.

    Of messages: ``failed``, ``read`` (of those delivered), ``skip_delivered`` (of those read),
    ``out_of_order`` (two stages change places; a Failed comes after a Delivered), ``unknown_status`` (one
    more report, of a status nobody documented), ``shared`` (two recipients under one MessageId),
    ``no_number`` (of people: a user id stands for it), ``odd_numbers`` (numbers with +), ``hidden`` (the first report of a
    recipient has a number, or both, later ones have a user id alone). Of reports: ``duplicate`` (the same again later),
    ``text`` (text beyond plain ASCII and an unknown field, see ``oddities.add_text``), ``odd`` (one deviation of
    ``oddities.ODDITIES``), ``undecodable`` (an item beside it that has to be quarantined). Of pushes: ``truncated`` (one
    more push, of a body that is no JSON).
    """

    failed: float = 0.06
    read: float = 0.6
    skip_delivered: float = 0.05
    out_of_order: float = 0.03
    unknown_status: float = 0.005
    shared: float = 0.03
    no_number: float = 0.1
    odd_numbers: float = 0.015
    hidden: float = 0.0
    duplicate: float = 0.02
    text: float = 0.0
    odd: float = 0.1
    undecodable: float = 0.002
    truncated: float = 0.002

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise ConfigurationError(f"mix.{name} is {share}: a share lies between 0 and 1")

    @classmethod
    def plain(cls) -> "Mix":
        """Lives and failures only: all as the page documents it, in order, once, nothing to quarantine."""
        return cls(
            skip_delivered=0, out_of_order=0, unknown_status=0, shared=0, no_number=0, odd_numbers=0, duplicate=0, odd=0,
            undecodable=0, truncated=0,
        )  # fmt: skip

    @classmethod
    def usual(cls) -> "Mix":
        """As ``plain``, and a third of the reports has text, as real senders' reports do: the benchmarks' load."""
        return msgspec.structs.replace(cls.plain(), text=1 / 3)


class CampaignOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to generate. Wrong values raise ConfigurationError.

    ``messages`` may be None where ``max_reports`` ends the campaign. ``run`` opens every message id: two
    campaigns against one topic need different ones; None makes one from the seed. ``size`` is the least and
    the greatest number of reports in a callback. With ``reports_per_second`` or ``callbacks_per_second`` the
    pushes have times, else none. ``status`` is put in place of every status (and then nothing else is odd
    about a report): for live deployments. ``started_at_ms`` is the Timestamp of the first message, in
    milliseconds since the epoch.
    """

    messages: int | None = 1000
    max_reports: int | None = None
    seed: int = 1
    run: str | None = None
    size: tuple[int, int] = (10, 10)
    reports_per_second: float | None = None
    callbacks_per_second: float | None = None
    mix: Mix = Mix()
    status: str | None = None
    started_at_ms: int = 1_767_225_600_000

    def __post_init__(self) -> None:
        least, greatest = self.size
        if not 1 <= least <= greatest <= MAX_REPORTS_PER_CALLBACK:
            raise ConfigurationError(
                f"size is {least}-{greatest}: reports per callback, from 1 to {MAX_REPORTS_PER_CALLBACK}"
            )
        if self.messages is None and self.max_reports is None:
            raise ConfigurationError("messages or max_reports has to end the campaign")
        if self.reports_per_second is not None and self.callbacks_per_second is not None:
            raise ConfigurationError("reports_per_second or callbacks_per_second, not both")
        for name in ("messages", "max_reports", "reports_per_second", "callbacks_per_second"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ConfigurationError(f"{name} is {value}: it has to be above 0")


class _Item(NamedTuple):
    raw: bytes
    report: Report


class Campaign:
    """Pushes in order of time. ``run`` is what every message id starts with."""

    def __init__(self, options: CampaignOptions) -> None:
        self.options = options
        self.run = options.run if options.run is not None else f"{options.seed:014d}"

    def pushes(self) -> Iterator[Push]:
        """Generate it, from its beginning at every call; memory holds some hundred messages of it."""
        mix, chance = self.options.mix, self._chance("pushes")
        items = itertools.islice(_Lives(self.options, self.run).items(), self.options.max_reports)
        numbers = itertools.count()
        reports = 0
        while batch := list(itertools.islice(items, self._size(chance))):
            number = next(numbers)
            body = b"[" + b",".join([item.raw for item in batch]) + b"]"
            yield Push(number, self._time(number, reports), body, tuple([item.report for item in batch]))
            reports += len(batch)
            if chance.random() < mix.truncated:
                number = next(numbers)
                body = truncated_body({"MessageId": f"{self.run}-truncated-{number}", "Status": "Sent"})
                yield Push(number, self._time(number, reports), body, (_to_quarantine(body),))
                reports += 1

    def _size(self, chance: random.Random) -> int:
        """Reports for the next callback: small ones more often, as a queue emptied often gives them."""
        least, greatest = self.options.size
        if least == greatest:
            return least
        drawn = int(math.exp(chance.uniform(math.log(least), math.log(greatest + 1))))
        return max(least, min(greatest, drawn))

    def _time(self, number: int, reports: int) -> float | None:
        if self.options.reports_per_second is not None:
            return reports / self.options.reports_per_second
        if self.options.callbacks_per_second is not None:
            return number / self.options.callbacks_per_second
        return None

    def _chance(self, purpose: str) -> random.Random:
        return random.Random(f"{self.options.seed} {purpose}")  # noqa: S311 - has to be repeatable, guards nothing


class _Lives:
    """The reports of all messages, in order of time."""

    def __init__(self, options: CampaignOptions, run: str) -> None:
        self._options, self._mix, self._run = options, options.mix, run
        self._chance = random.Random(f"{options.seed} lives")  # noqa: S311 - has to be repeatable, guards nothing
        self._marks = itertools.count()
        self._encode = msgspec.json.Encoder().encode

    def items(self) -> Iterator[_Item]:
        """All items; a message's own are generated when it starts and wait on a heap until they are due."""
        due: list[tuple[float, int, _Item]] = []
        tie = itertools.count()
        starts: Iterable[int] = itertools.count() if self._options.messages is None else range(self._options.messages)
        for index in starts:
            for delay, item in self._message(index):
                heapq.heappush(due, (index + delay, next(tie), item))
            while due and due[0][0] < index + 1:
                yield heapq.heappop(due)[2]
        while due:
            yield heapq.heappop(due)[2]

    def _message(self, index: int) -> Iterator[tuple[float, _Item]]:
        """Every report of one message with its delay: one life for each of its recipients."""
        chance, mix = self._chance, self._mix
        common = self._common_fields(index)
        numbers = "plus" if chance.random() < mix.odd_numbers else "plain"
        numbers = "user id" if chance.random() < mix.no_number else numbers
        if mix.hidden and chance.random() < mix.hidden:
            numbers = chance.choice(("hidden", "hidden, linked"))
        for nth in range(2 if chance.random() < mix.shared else 1):
            delay = 0.0
            for stage, status in enumerate(self._stages()):
                # Under one forced status the stages of a life would be one fact: a number each parts them.
                person = index * 16 + nth * 8 + (stage if self._options.status is not None else 0)
                delay += chance.expovariate(1 / _LAG.get(status, _OTHER_LAG))
                item = self._report(common, status, person, _named(numbers, stage))
                yield delay, item
                if chance.random() < mix.duplicate:
                    yield delay + chance.expovariate(1 / _DUPLICATE_LAG), item
                if chance.random() < mix.undecodable:
                    yield delay, self._undecodable(common | {"Status": status})

    def _stages(self) -> list[str]:
        chance, mix = self._chance, self._mix
        out_of_order = chance.random() < mix.out_of_order
        if chance.random() < mix.failed:
            return ["Sent", "Delivered", "Failed"] if out_of_order else ["Sent", "Failed"]
        stages = ["Sent", "Delivered"]
        if chance.random() < mix.read:
            stages = ["Sent", "Read"] if chance.random() < mix.skip_delivered else ["Sent", "Delivered", "Read"]
        if out_of_order:
            first = chance.randrange(len(stages) - 1)
            stages[first], stages[first + 1] = stages[first + 1], stages[first]
        if chance.random() < mix.unknown_status:
            stages.append(chance.choice(_UNKNOWN_STATUSES))
        return stages

    def _common_fields(self, index: int) -> dict[str, Any]:
        """What all reports of a message have in common, as the page's two examples show it."""
        chance = self._chance
        message_id = f"{self._run}{index:08d}"
        fields: dict[str, Any] = {
            "MessageId": message_id,
            "TaskId": chance.choice((message_id, f"task-{index // 100}")),
            "From": telephone_number(index // 1000 % 8),
            "OriginPhoneNumber": telephone_number(index // 1000 % 8 + 50),
            "Timestamp": self._options.started_at_ms + index * _MESSAGE_GAP_MS,
        }
        if chance.random() < 0.7:  # noqa: PLR2004 - templates are most of what is sent
            return fields | {
                "MsgFrameType": "template", "Type": chance.choice(("TEMPLATE", "none", "image")),
                "TemplateCode": "820561547132813184", "TemplateName": "simulated_offer", "Language": "id",
            }  # fmt: skip
        return fields | {
            "MsgFrameType": "message", "Type": chance.choice(("INTERACTIVE", "none", "document")),
            "ConversationId": f"7222{index:012d}", "ConversationType": chance.choice(_CONVERSATIONS),
        }  # fmt: skip

    def _report(self, common: dict[str, Any], status: str, person: int, numbers: str) -> _Item:
        chance, forced = self._chance, self._options.status
        fields = common | {"Status": forced or status}
        recipient, user_id = telephone_number(person), ""
        if numbers in {"user id", "both"}:
            # Both spellings of the names are about.
            user_id, spelling = f"US.{person:016d}", chance.choice(("", "From"))
            fields |= {f"{spelling}UserId": user_id, f"{spelling}UserName": "Simulated Person"}
        if numbers == "user id":
            recipient = user_id
        elif numbers == "plus":
            recipient = f"+{recipient}"
            fields |= {"To": recipient, "From": f"+{fields['From']}"}
        else:
            fields["To"] = recipient
        code = None
        if status == "Failed":
            code, text, _ = chance.choices(_FAILURES, _FAILURE_WEIGHTS)[0]
            fields |= {"ErrorCode": code, "ErrorDescription": f"{code}:{text}"}
        has_text = self._mix.text > 0 and chance.random() < self._mix.text
        if has_text:
            add_text(fields)
        draft = Draft(fields, fields["MessageId"], recipient, forced or status, code)
        if forced is None and chance.random() < self._mix.odd:
            chance.choice(ODDITIES)(draft, chance)
        facts = (draft.message_id, draft.recipient, draft.status, draft.wire_error_code)
        raw = self._encode(draft.fields)
        return _Item(
            draft.finish(escape_text(raw) if has_text else raw), Report(*facts, event_id(*facts), user_id=user_id)
        )

    def _undecodable(self, fields: dict[str, Any]) -> _Item:
        raw = self._chance.choice(UNDECODABLE)(fields, f"{self._run}-undecodable-{next(self._marks)}")
        return _Item(raw, _to_quarantine(raw))


def _named(numbers: str, stage: int) -> str:
    """How a report of this stage names its recipient, whose number may be hidden after the first."""
    if not numbers.startswith("hidden"):
        return numbers
    if stage > 0:
        return "user id"
    return "both" if numbers == "hidden, linked" else "plain"


def _to_quarantine(raw: bytes) -> Report:
    return Report("", "", "", None, None, raw_sha256(raw))


def telephone_number(n: int) -> str:
    """A fictitious number, without the +: 60,000 different ones, neighbours always differ."""
    return f"1{200 + n // 100 % 600}55501{n % 100:02d}"
