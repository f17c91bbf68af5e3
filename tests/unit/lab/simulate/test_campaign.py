"""What campaigns are made of."""

import itertools
import json
import re
from collections import Counter, defaultdict
from typing import Any

import msgspec
import pytest

from bridge.errors import ConfigurationError
from bridge.lab.simulate.campaign import Campaign, CampaignOptions, Mix, telephone_number
from bridge.lab.simulate.identity import event_id, raw_sha256
from bridge.lab.simulate.oddities import ODDITIES
from bridge.lab.simulate.push import Push, Report
from bridge.report import scan

KNOWN = {
    "MessageId", "From", "To", "Timestamp", "Status", "StatusDescription", "ErrorCode", "ErrorDescription",
    "ConversationType", "ConversationId", "ConversationExpirationTime", "MsgFrameType", "Type", "TaskId",
    "OriginPhoneNumber", "TemplateCode", "Language", "TemplateName",
}  # fmt: skip
EVERYTHING = Mix(
    failed=0.3, out_of_order=0.3, unknown_status=0.1, shared=0.2, no_number=0.2, odd_numbers=0.1, duplicate=0.1, odd=0.7,
    undecodable=0.05, truncated=0.05,
)  # fmt: skip


def _pushes(**options: Any) -> list[Push]:
    return list(Campaign(CampaignOptions(**options)).pushes())


def _reports(pushes: list[Push]) -> list[Report]:
    return [report for push in pushes for report in push.reports]


def _items(pushes: list[Push]) -> list[tuple[bytes, Report]]:
    """Each item's raw bytes and its report, for whole arrays."""
    pairs: list[tuple[bytes, Report]] = []
    for push in pushes:
        raws = scan.split(push.body)
        if raws is not None:
            pairs += zip(raws, push.reports, strict=True)
    return pairs


def _meaning(raw: bytes) -> tuple[str, str, str, str | None]:
    """What an item says, read the simplest way that copes with every oddity."""
    fields = {name.strip(): value for name, value in _loads(raw).items() if value not in (None, "", " ")}
    code = fields.get("ErrorCode", fields.get("Error"))
    person = fields.get("To", fields.get("UserId", fields.get("FromUserId", "")))
    return fields["MessageId"], person, fields["Status"].strip(), None if code is None else str(code)


def _loads(raw: bytes) -> Any:
    """An item, a comma that trails and raw line breaks taken as they are meant."""
    return json.loads(raw.replace(b",}", b"}"), strict=False)


def test_the_same_seed_gives_the_same_bytes() -> None:
    """A campaign can be repeated exactly, and another seed gives another one."""
    assert _pushes(seed=7, mix=EVERYTHING) == _pushes(seed=7, mix=EVERYTHING)
    campaign = Campaign(CampaignOptions(seed=7, mix=EVERYTHING))
    assert list(campaign.pushes()) == list(campaign.pushes())
    assert [push.body for push in _pushes(seed=7, run="x")] != [push.body for push in _pushes(seed=8, run="x")]


def test_what_is_known_of_an_item_is_what_its_bytes_say() -> None:
    """Whatever is odd about an item: its facts are those in its bytes, its id is of these facts."""
    pushes = _pushes(messages=3000, mix=EVERYTHING, size=(1, 50))
    events = 0
    for raw, report in _items(pushes):
        if report.quarantined:
            assert report.raw_sha256 == raw_sha256(raw)
            continue
        facts = (report.message_id, report.recipient, report.status, report.wire_error_code)
        assert facts == _meaning(raw)
        assert report.event_id == event_id(*facts)
        events += 1
    assert events > 6000


def test_every_oddity_comes_up() -> None:
    """Each deviation that is known of is pushed at the bridge sooner or later."""
    items = [raw for raw, report in _items(_pushes(messages=3000, mix=EVERYTHING)) if not report.quarantined]
    fields = [_loads(raw) for raw in items]
    seen = Counter(name for each in fields for name in each)
    for name in (
        "FromUserId",
        "UserId",
        "Error",
        "ConversionExpirationTime",
        "StatusDescription",
        "PricingModel",
        "To ",
    ):
        assert seen[name] > 0, name
    assert any(b"\\ud83d" in raw for raw in items)
    assert any(b"\n" in raw for raw in items)
    assert any(raw.endswith(b",}") for raw in items)
    assert any(each.get("Status") == "Delivered" and each.get("ErrorCode") == "200" for each in fields)
    assert any(each.get("To", "").startswith("+") for each in fields)
    assert any(isinstance(each.get("Timestamp"), str) for each in fields)
    assert any(isinstance(each.get("ErrorCode"), int) and each["ErrorCode"] for each in fields)
    assert any(each.get("Status") == "delivered" for each in fields)
    assert any(each.get("Status") in {"played", "warning", "clicked"} for each in fields)
    assert any(each.get("Status") == "Failed" and not {*each} & {"ErrorCode", "Error"} for each in fields)
    assert len(ODDITIES) == 18


def test_quarantine_has_something_of_every_kind() -> None:
    """Undecodable items lack what an event needs, each in its own bytes; truncated bodies are no JSON."""
    pushes = _pushes(messages=3000, mix=EVERYTHING)
    raws = [raw for raw, report in _items(pushes) if report.quarantined]
    for raw in raws:
        try:
            fields = json.loads(raw)
        except UnicodeDecodeError:
            continue
        usable = isinstance(fields, dict) and {"MessageId", "Status"} <= {*fields}
        assert not (usable and isinstance(fields["MessageId"], str))
    assert len(raws) == len(set(raws)) > 50
    truncated = [push for push in pushes if push.body[-1:] != b"]"]
    assert truncated
    for push in truncated:
        assert [raw_sha256(push.body)] == [report.raw_sha256 for report in push.reports]
        with pytest.raises(json.JSONDecodeError):
            json.loads(push.body)


def test_lives_are_what_a_provider_reports() -> None:
    """Sent, Delivered, Read or Failed; mostly in order, some not; some never Delivered; some repeated."""
    lives: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    mix = Mix(odd=0, no_number=0, odd_numbers=0, undecodable=0, truncated=0, unknown_status=0)
    reports = _reports(_pushes(messages=4000, mix=mix))
    for report in reports:
        lives[report.message_id, report.recipient].append(report.status)
    kinds = Counter(tuple(dict.fromkeys(life)) for life in lives.values())
    common = [kind for kind, _ in kinds.most_common(3)]
    assert {("Sent", "Delivered", "Read"), ("Sent", "Delivered"), ("Sent", "Failed")} == set(common)
    for rare in (("Sent", "Read"), ("Sent", "Read", "Delivered"), ("Sent", "Delivered", "Failed")):
        assert 0 < kinds[rare] < kinds["Sent", "Failed"], rare
    repeated = len(reports) - len({report.event_id for report in reports})
    assert 0.01 < repeated / len(reports) < 0.03
    recipients = Counter(message_id for message_id, _ in lives)
    assert {1, 2} == set(recipients.values())


def test_lives_interleave() -> None:
    """Many messages are under way at once: a Read follows its Sent at a distance."""
    reports = _reports(_pushes(messages=2000, mix=Mix.plain()))
    at = {(report.message_id, report.status): position for position, report in enumerate(reports)}
    distances = [at[message_id, "Read"] - at[message_id, "Sent"] for message_id, status in at if status == "Read"]
    assert 50 < sorted(distances)[len(distances) // 2] < 1000
    assert min(distances) > 0


def test_the_plain_mix_is_what_the_page_documents() -> None:
    """Documented fields only, one order of life, no repeats, nothing for quarantine."""
    pushes = _pushes(messages=1000, mix=Mix.plain())
    for raw, _ in _items(pushes):
        assert {*json.loads(raw)} <= KNOWN
    reports = _reports(pushes)
    assert len(reports) == len({report.event_id for report in reports})
    assert not any(report.quarantined for report in reports)


def test_the_usual_mix_is_the_plain_one_with_text_in_a_third_of_the_reports() -> None:
    """Characters beyond ASCII, escapes and an unknown field; the same facts as without."""
    items = _items(_pushes(messages=1000, mix=Mix.usual()))
    with_text = [raw for raw, _ in items if {*json.loads(raw)} - {*KNOWN, "UserName"} == {"Extension"}]
    assert 0.3 < len(with_text) / len(items) < 0.37
    for raw in with_text:
        assert not raw.isascii()
        for escape in (rb"\u4e2d", rb"\"", rb"\n", rb"\/"):
            assert escape in raw
    for raw, report in items:
        facts = report.message_id, report.recipient, report.status, report.wire_error_code
        assert _meaning(raw) == facts
    assert not [raw for raw, _ in _items(_pushes(messages=1000, mix=Mix.plain())) if not raw.isascii()]


def test_text_takes_the_name_that_a_report_has_for_its_user() -> None:
    """By two names, the bridge would have to keep one of them in extras."""
    mix = msgspec.structs.replace(Mix.plain(), text=1.0, no_number=1.0)
    for raw, _ in _items(_pushes(messages=100, mix=mix)):
        assert len({"UserName", "FromUserName"} & {*json.loads(raw)}) == 1


def test_every_telephone_number_is_reserved_for_fiction() -> None:
    """Nobody's number: +1 NPA 555-01xx."""
    fictitious = re.compile(r"\+?1[2-7]\d\d55501\d\d")
    for raw, _ in _items(_pushes(messages=500, mix=Mix(undecodable=0, odd_numbers=0.3))):
        fields = {name.strip(): value for name, value in _loads(raw).items()}
        for name in ("From", "To", "OriginPhoneNumber"):
            assert not fields.get(name) or fictitious.fullmatch(fields[name])
    assert len({telephone_number(n) for n in range(60_000)}) == 60_000


def test_people_hide_their_number_after_their_first_report() -> None:
    """It names the number, or both; later ones name the user id alone, which is the recipient of the ledger then."""
    named: defaultdict[str, list[tuple[str | None, str | None]]] = defaultdict(list)
    mix = Mix(hidden=1, no_number=0, shared=0, out_of_order=0, duplicate=0, undecodable=0, truncated=0, odd=0)
    for raw, report in _items(_pushes(messages=200, mix=mix)):
        fields = json.loads(raw)
        user_id = fields.get("UserId", fields.get("FromUserId"))
        named[report.message_id].append((fields.get("To"), user_id))
        assert (report.to, report.user_id) == (fields.get("To", ""), user_id or "")
        assert report.recipient == (report.to or report.user_id)
    assert {(bool(user_id), len(set(later))) for (_, user_id), *later in named.values()} == {(True, 1), (False, 1)}
    assert all(first[0] and later[0][0] is None for first, *later in named.values())


def test_every_message_id_starts_with_the_run() -> None:
    """Two runs never share a message, whatever else they share."""
    ids = [{report.message_id for report in _reports(_pushes(run=run)) if report.event_id} for run in ("2026", "2027")]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert all(message_id.startswith("2026") for message_id in ids[0])


def test_a_forced_status_keeps_the_stages_apart() -> None:
    """With one status for all, each stage is still an event of its own, and nothing else is odd."""
    mix = Mix(undecodable=0, truncated=0, duplicate=0, odd=1)
    forced = _reports(_pushes(status="BridgeTest", mix=mix))
    assert {"BridgeTest"} == {report.status for report in forced}
    assert len(forced) == len({report.event_id for report in forced})
    assert len(forced) > 2 * len({report.message_id for report in forced})
    for raw, _ in _items(_pushes(status="BridgeTest", mix=mix)):
        assert json.loads(raw)["Status"] == "BridgeTest"


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (1, 1000)])
def test_callbacks_are_as_large_as_asked(size: tuple[int, int]) -> None:
    """All but the last hold what was asked for, and together they hold everything, whatever the size."""
    mix = Mix(truncated=0)
    pushes = _pushes(messages=5000, size=size, mix=mix)
    sizes = [len(push.reports) for push in pushes]
    assert all(size[0] <= each <= size[1] for each in sizes[:-1])
    assert size[0] == size[1] or (min(sizes[:-1]) < 5 and max(sizes) > 300)
    assert sum(sizes) == len(_reports(_pushes(messages=5000, mix=mix)))
    assert [push.number for push in pushes] == list(range(len(pushes)))


def test_times_follow_the_rate() -> None:
    """A push is due when all reports before it are, at the rate; without a rate it has no time."""
    pushes = _pushes(size=(1, 9), reports_per_second=50.0)
    before = itertools.accumulate((len(push.reports) for push in pushes), initial=0)
    assert [push.at_seconds for push in pushes] == [count / 50 for count, _ in zip(before, pushes, strict=False)]
    assert [push.at_seconds for push in _pushes(callbacks_per_second=2.0)[:3]] == [0.0, 0.5, 1.0]
    assert {None} == {push.at_seconds for push in _pushes()}


def test_it_ends_where_it_is_told_to() -> None:
    """An endless campaign ends with its last report."""
    assert len(_reports(_pushes(messages=None, max_reports=123, mix=Mix(truncated=0)))) == 123


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": (0, 10)}, "size"),
        ({"size": (5, 4)}, "size"),
        ({"size": (1, 1001)}, "size"),
        ({"messages": 0}, "messages"),
        ({"messages": None}, "messages"),
        ({"max_reports": -1}, "max_reports"),
        ({"reports_per_second": 0.0}, "reports_per_second"),
        ({"callbacks_per_second": float("nan")}, "callbacks_per_second"),
        ({"reports_per_second": 1.0, "callbacks_per_second": 1.0}, "both"),
    ],
)
def test_what_makes_no_campaign_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    """A wrong option stops with its name."""
    with pytest.raises(ConfigurationError, match=named):
        CampaignOptions(**options)


def test_a_share_is_a_share() -> None:
    """Shares outside 0 to 1 are refused by name."""
    with pytest.raises(ConfigurationError, match=r"mix\.odd"):
        Mix(odd=1.5)
