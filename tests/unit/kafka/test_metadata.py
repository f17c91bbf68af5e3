"""What the bridge asks of the cluster's metadata, and reads from the answer, in the version with topic ids and in older ones."""

import asyncio

import pytest
from aiokafka.protocol.metadata import MetadataResponse_v5
from support.kafka_frames import METADATA_ANSWER
from support.wire_server import Asked, WireServer, frame

from bridge.errors import UnreadableAnswer
from bridge.kafka import messages
from bridge.kafka.metadata import Broker, Metadata, Topic, ask_metadata, metadata_request, read_metadata
from bridge.kafka.wire import connect

# Written by kio 0.6.5, as METADATA_ANSWER.
REQUEST = bytes.fromhex("0003" + "00" * 16 + "0773746174757300" + "00" * 16 + "04c3a96e00" + "00000000")
READ = Metadata(
    "5L6g3nShT-eMCtK--X86sw",
    {1: Broker("one", 9092), 2: Broker("zwö", 9093)},
    [
        Topic("status", 0, "-wARIjNEVWZ3iJmqu8zd7w", {0: 1, 1: -1}),
        Topic("old", 0, "", {0: 2}),
        Topic("missing", 3, "", {}),
    ],
)


def test_a_request_is_written() -> None:
    """For these topics, without creating them."""
    assert metadata_request(["status", "én"]) == REQUEST


def test_an_answer_is_read() -> None:
    """Nulls are empty; a topic without an id has none."""
    assert read_metadata(METADATA_ANSWER) == READ
    assert READ.topic_ids == {"status": "-wARIjNEVWZ3iJmqu8zd7w"}


def test_tagged_fields_are_skipped() -> None:
    """In a head of the answer, and at its end: later brokers may add some."""
    tags = b"\x02" + b"\x00\x03abc" + b"\x81\x01\x01x"
    assert read_metadata(tags + METADATA_ANSWER[1:-1] + tags) == READ


def test_a_number_that_does_not_end_is_refused() -> None:
    """The longest has five bytes."""
    with pytest.raises(UnreadableAnswer, match="five bytes"):
        messages.Fields(b"\xff" * 9).varint()


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 16_383, 16_384, 2**31 - 1])
def test_a_number_of_any_length_is_read_as_it_was_written(number: int) -> None:
    """Seven bits a byte."""
    assert messages.Fields(messages.varint(number)).varint() == number


@pytest.mark.parametrize(("offered", "version"), [((0, 13), 10), ((0, 10), 10), ((0, 9), 5), (None, 0)])
async def test_a_broker_is_asked_in_a_version_that_it_offers(offered: tuple[int, int] | None, version: int) -> None:
    """Without version 10 there are no topic ids; the cluster id and the leaders are there all the same."""
    asked: list[int] = []

    async def answer(request: Asked, writer: asyncio.StreamWriter) -> None:
        asked.append(request.version)
        old = MetadataResponse_v5(
            throttle_time_ms=0,
            brokers=[(1, "one", 9092, None)],
            cluster_id="id",
            controller_id=1,
            topics=[(0, "status", False, [(0, 0, 1, [1], [1], [])])],
        ).encode()
        writer.write(frame(request.correlation_id, METADATA_ANSWER if request.version == 10 else old))

    async with WireServer() as server:
        server.answer = answer
        server.offered |= {messages.METADATA: offered} if offered else {}
        connection = await connect("127.0.0.1", server.port, server.arguments(), 5.0)
        if offered is None:
            with pytest.raises(Exception, match="no version of MetadataRequest"):
                await ask_metadata(connection, ["status"])
            return
        metadata = await ask_metadata(connection, ["status"])
        connection.abort("done")
    assert asked == [version]
    expected = READ if version == 10 else Metadata("id", {1: Broker("one", 9092)}, [Topic("status", 0, "", {0: 1})])
    assert metadata == expected
