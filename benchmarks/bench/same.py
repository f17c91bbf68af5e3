"""Whether a peer that claims to do the same work makes the same records: key, partition, value, headers."""

import re
from collections import Counter
from typing import Any
from urllib.request import Request, urlopen

import msgspec
from confluent_kafka import Consumer, TopicPartition

from bench.kafka import PARTITIONS
from bench.measure import Running
from bridge.lab.simulate.campaign import Campaign, CampaignOptions, Mix

READ_SECONDS = 20.0
# What differs between any two callbacks: the time of receipt and the callback's id.
VARYING = {"ce_time", "bridge_callback"}
_received = re.compile(rb'"received_at":\d{13}')
# Documented reports with all that needs care: escapes, blanks, seconds, a code in the description, words to fold.
ODD = [
    {"MessageId": 'q"\\\n\t\x01\b\f\r é中😀\x7f', "Status": "Sent", "StatusDescription": "a/b</&\u2028", "Timestamp": 1691043638},
    {"MessageId": "m-2", "Status": " delivered ", "TaskId": " ", "To": "", "FromUserId": "U", "ConversationType": " Mark-Et "},
    {"MessageId": "m-3", "Status": "Failed", "ErrorDescription": "131049:not delivered", "To": "8613800000000"},
    {"MessageId": "m-3", "Status": "Failed", "ErrorDescription": "(#131026) not delivered", "UserId": "u", "FromUserName": "中"},
    {"MessageId": "m-3", "Status": "Delivered", "ErrorCode": "200", "ErrorDescription": "https://example.com"},
    {"MessageId": "m-3", "Status": "UNSUBSCRIBE", "ErrorCode": "DELIVRD", "UserId": "u", "FromUserId": "u"},
    {"MessageId": "m-4", "Status": "Failed", "ErrorCode": " 131026 ", "ErrorDescription": "x", "Type": "IMAGE"},
    {"MessageId": "m-5", "Status": "Failed", "ErrorCode": "0"},
    {"MessageId": "m-6", "Status": "Read", "ErrorCode": "OK", "FromUserName": "A", "FromParentUserId": "B"},
    {"MessageId": "m-7", "Status": "READ", "ErrorDescription": "no code here", "ConversationExpirationTime": 1691043638000},
    {"MessageId": "m-8", "Status": "Deleted", "TemplateCode": "1", "Timestamp": 1691043638000, "OriginPhoneNumber": "86"},
    {"MessageId": "m-9", "Status": "Played", "ErrorCode": "250", "Language": "id", "MsgFrameType": "Message"},
    {"MessageId": "m-10", "Status": "Read", "Campaign": "é", '备\n"注': [1, 2.5e3, {"a": None}], "Empty": {}, "x/y": True},
    {"MessageId": 11, "Status": "Read", "TaskId": 0, "TemplateCode": 820561547132813184, "ErrorCode": None, "Timestamp": None},
    {"MessageId": "m-12", "Status": "Unsubscribed"},
    {"MessageId": "m-12", "Status": "Failed", "ErrorCode": "Product.Unsubscript"},
    {"MessageId": "m-13", "Status": "Failed", "ErrorDescription": "133010 not registered"},
]  # fmt: skip
# What no encoder writes: escapes that need not be, white space everywhere, a value in extras exactly as it came.
ESCAPED = rb"""[ {"MessageId" : "\u006d-14\/\ud83d\ude00\u4e2d\u00e9" , "Status":"Re\u0061d", "Message\u0049d2" : { "a\/b" :
    [ 1.0e+2 , -0 , "\u00e9\n" , false ] } , "TemplateName":"\"\\\b\f\n\r\t\u001f\u007f" ,
    "Extra":"\u001f" , "To":null }
]"""


def bodies() -> list[bytes]:
    """Some callbacks: a campaign with failures, text, odd numbers and unknown statuses, and the odd ones."""
    mix = msgspec.structs.replace(
        Mix.plain(),
        failed=0.3,
        text=0.5,
        unknown_status=0.1,
        shared=0.1,
        no_number=0.2,
        odd_numbers=0.1,
        out_of_order=0.1,
    )
    options = CampaignOptions(messages=None, max_reports=1000, seed=7, size=(1, 40), reports_per_second=1e9, mix=mix)
    return [msgspec.json.encode(ODD), ESCAPED, *(push.body for push in Campaign(options).pushes())]


def differences(one: Running, other: Running, bootstrap: str) -> list[str]:
    """Push the same to both; what of their records differs, none where all is the same."""
    ours, theirs = (Counter(_made(each, bootstrap)) for each in (one, other))
    sides = (one, ours - theirs), (other, theirs - ours)
    return [f"only {who.contestant.name}: {record}" for who, more in sides for record in more]


def _made(of: Running, bootstrap: str) -> list[tuple[Any, ...]]:
    """The records that come of the bodies."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "same", "enable.auto.commit": False})
    partitions = [TopicPartition(of.topic, number) for number in range(PARTITIONS)]
    try:
        for each in partitions:
            each.offset = consumer.get_watermark_offsets(each)[1]
        consumer.assign(partitions)
        count = 0
        for body in bodies():
            count += len(msgspec.json.decode(body))
            with urlopen(Request(of.url, body, {"Content-Type": "application/json"})) as answer:  # noqa: S310
                answer.read()
        return [_comparable(message) for message in consumer.consume(count, READ_SECONDS)]
    finally:
        consumer.close()


def _comparable(message: Any) -> tuple[Any, ...]:
    at = b"%d" % message.timestamp()[1]
    value = message.value()
    received = _received.search(value)
    assert received is not None, value  # noqa: S101 - it is no event of ours
    assert received[0].endswith(at), (value, at)  # noqa: S101 - the record's time is the receipt's
    headers = [(name, b"" if name in VARYING else value) for name, value in message.headers()]
    return message.partition(), message.key(), value.replace(at, b"0"), tuple(headers)
