"""The judge of segments finds each way in which a log can be wrong, and none where nothing is."""

import struct
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from support.segments import DamagedSegmentError, Verdict, judge, read_topic
from support.simulate_server import push, report

from bridge.lab.simulate.ledger import Attempt, Ledger
from bridge.lab.simulate.push import Report

TOPIC = "status"
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
LAST_SEQUENCE = (1 << 31) - 1
SENT, DELIVERED, READ = (report("m", state) for state in ("Sent", "Delivered", "Read"))


def encoded(
    events: Sequence[Report],
    *,
    offset: int,
    sequence: int,
    producer: tuple[int, int] = (7, 0),
    codec: int = NONE,
    leader_epoch: int = 0,
) -> bytes:
    """A batch as a broker writes it."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, *producer, sequence, 1 << 20)
    for number, each in enumerate(events):
        assert each.event_id is not None
        value = b"value of " + each.event_id.encode() * 9
        builder.append(number, 1000, each.message_id.encode(), value, [("ce_id", each.event_id.encode())])
    data = builder.build()
    # A broker sets both, and the checksum does not cover them.
    struct.pack_into(">q", data, 0, offset)
    struct.pack_into(">i", data, 12, leader_epoch)
    return bytes(data)


class Disk:
    """The directory of one broker."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *batches: bytes, partition: int = 0, base: int = 0) -> "Disk":
        """A segment."""
        directory = self.path / f"{TOPIC}-{partition}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{base:020}.log").write_bytes(b"".join(batches))
        return self

    def appended(self, *sequences: int, producer: tuple[int, int] = (7, 0), first_offset: int = 0) -> "Disk":
        """A segment with batches of two events each, with these base sequences; no event is in it twice."""
        messages = (f"m{number}" for number in count())
        return self.write(
            *(
                encoded(
                    [report(next(messages), "Sent"), report(next(messages), "Sent")],
                    offset=first_offset + 2 * number,
                    sequence=sequence,
                    producer=producer,
                )
                for number, sequence in enumerate(sequences)
            )
        )

    def judge(self) -> Verdict:
        """Of the sequences alone."""
        return judge([self.path], TOPIC)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """Empty."""
    return Disk(tmp_path / "data")


def promised(*reports: Report) -> Ledger:
    """A push of these was answered 200."""
    ledger = Ledger()
    ledger.opened(push(0, *reports), 1.0)
    ledger.attempted(Attempt(0, 1, 1.0, 1.0, 2.0, 200, None))
    return ledger


def one_by_one(*events: Report) -> list[bytes]:
    """A batch for each."""
    return [encoded([event], offset=number, sequence=number) for number, event in enumerate(events)]


@pytest.mark.parametrize("codec", [NONE, GZIP, SNAPPY, LZ4, ZSTD])
def test_a_whole_log_over_two_segments_is_well(disk: Disk, codec: int) -> None:
    """Whatever compresses it, and whoever wrote it: producers do not share their sequences."""
    disk.write(
        encoded([SENT, DELIVERED], offset=0, sequence=0, codec=codec),
        encoded([report("n", "Sent")], offset=2, sequence=0, producer=(8, 0), codec=codec),
    ).write(encoded([READ], offset=3, sequence=2, codec=codec), base=3)
    ledger = promised(SENT, DELIVERED, READ, report("n", "Sent"))

    verdict = judge([disk.path], TOPIC, entries=ledger.entries.values(), max_repeats=0)

    assert verdict.ok, verdict.describe()
    assert (3, 4, 2, 1) == (verdict.batches, verdict.records, verdict.producers, verdict.partitions)
    assert verdict.checked is not None
    assert (4, 4, 1) == (verdict.checked.promised, verdict.checked.found, verdict.checked.ordered_keys)


def test_a_gap_is_found_once(disk: Disk) -> None:
    """What follows it is measured from there."""
    verdict = disk.appended(0, 2, 6, 8).judge()

    assert ["sequence gap"] == [each.kind for each in verdict.findings]
    assert "status/0, producer 7 epoch 0: sequences 6 to 7 at offset 4, where 4 is next" in verdict.describe()


def test_an_overlap_is_found_once(disk: Disk) -> None:
    """A batch that uses a number again, with other records."""
    verdict = disk.appended(0, 2, 3, 5).judge()

    assert ["sequence overlap"] == [each.kind for each in verdict.findings]


def test_the_same_batch_appended_twice_is_a_repeat(disk: Disk) -> None:
    """A broker would have answered without appending; what follows goes on from the newest."""
    first, second = [report("m0", "Sent")], [report("m1", "Sent")]
    verdict = disk.write(
        encoded(first, offset=0, sequence=0),
        encoded(second, offset=1, sequence=1),
        encoded(first, offset=2, sequence=0),
        encoded([report("m2", "Sent")], offset=3, sequence=2),
    ).judge()

    assert ["sequence repeat"] == [each.kind for each in verdict.findings]
    assert "the same as at offset 0" in verdict.describe()


def test_the_same_numbers_with_other_records_are_an_overlap(disk: Disk) -> None:
    """Two batches were given the same numbers."""
    verdict = disk.appended(0, 2, 2, 4).judge()

    assert {"sequence overlap"} == verdict.kinds


def test_a_producer_begins_with_0(disk: Disk) -> None:
    """A broker takes any number from a producer that it does not know."""
    assert {"sequence start"} == disk.appended(4, 6).judge().kinds


def test_where_the_beginning_was_deleted_any_number_may_be_first(disk: Disk) -> None:
    """Retention took the first segments."""
    assert disk.appended(4, 6, first_offset=10).judge().ok


def test_sequences_go_on_with_0_after_the_largest(disk: Disk) -> None:
    """They have 31 bits."""
    verdict = disk.appended(LAST_SEQUENCE - 3, LAST_SEQUENCE - 1, 0, 2, first_offset=10).judge()

    assert verdict.ok, verdict.describe()


def test_a_newer_epoch_begins_again_and_the_older_one_is_over(disk: Disk) -> None:
    """The same producer id."""
    batches = [
        encoded([report(f"m{offset}", "Sent")], offset=offset, sequence=sequence, producer=(7, epoch))
        for offset, (epoch, sequence) in enumerate([(0, 0), (1, 0), (1, 1), (0, 1)])
    ]

    assert disk.write(*batches[:3]).judge().ok
    assert ["producer epoch"] == [each.kind for each in disk.write(*batches).judge().findings]


def test_batches_without_sequences_are_counted(disk: Disk) -> None:
    """Of a producer that is not idempotent."""
    verdict = disk.appended(-1, -1, producer=(-1, -1)).judge()

    assert verdict.ok, verdict.describe()
    assert (2, 0) == (verdict.unsequenced, verdict.producers)


def test_a_copy_behind_newer_records_of_a_key_is_found(disk: Disk) -> None:
    """A batch without sequences that was sent again belongs behind itself, whatever comes of other keys in between."""
    batches = [
        encoded([event], offset=offset, sequence=-1, producer=(-1, -1))
        for offset, event in enumerate([SENT, report("other", "Sent"), SENT, READ, READ, SENT])
    ]

    assert disk.write(*batches[:5]).judge().ok
    findings = disk.write(*batches).judge().findings
    assert [("late copy", True)] == [(each.kind, "offset 5" in each.detail) for each in findings]


def test_a_hole_between_offsets_is_found(disk: Disk) -> None:
    """The topic is not compacted."""
    disk.write(
        encoded([SENT], offset=0, sequence=0),
        encoded([READ], offset=2, sequence=1),
    )

    assert {"offset gap"} == disk.judge().kinds


def test_a_promised_event_that_is_not_there_is_lost(disk: Disk) -> None:
    """With sequences that are without fault."""
    disk.write(*one_by_one(SENT, READ))

    verdict = judge([disk.path], TOPIC, entries=promised(SENT, DELIVERED, READ).entries.values())

    assert ["lost"] == [each.kind for each in verdict.findings]
    assert "NOT OK" in verdict.describe()


def test_first_occurrences_out_of_the_promised_order_are_found(disk: Disk) -> None:
    """With sequences that are without fault."""
    disk.write(*one_by_one(SENT, READ, DELIVERED))
    ledger = promised(SENT, DELIVERED, READ)

    assert {"out of order"} == judge([disk.path], TOPIC, entries=ledger.entries.values()).kinds
    assert judge([disk.path], TOPIC, entries=ledger.entries.values(), ordered=False).ok


def test_repeats_are_counted_and_bounded(disk: Disk) -> None:
    """Sent again by another producer, which nothing forbids."""
    disk.write(*one_by_one(SENT, READ), *(encoded([SENT, READ], offset=2, sequence=0, producer=(8, 0)),))
    entries = promised(SENT, READ).entries.values()

    allowed, forbidden = (judge([disk.path], TOPIC, entries=entries, max_repeats=bound) for bound in (2, 1))

    assert allowed.ok, allowed.describe()
    assert ["repeats"] == [each.kind for each in forbidden.findings]


def test_quarantined_records_are_judged_in_their_own_topic(disk: Disk, tmp_path: Path) -> None:
    """A topic is not taken for another whose name begins like it."""
    disk.write(*one_by_one(SENT))
    other = Disk(tmp_path / "other").appended(0, 4).path / f"{TOPIC}-0"
    other.rename(disk.path / f"{TOPIC}-more-0")

    assert disk.judge().ok
    verdict = judge([disk.path], TOPIC, quarantine=f"{TOPIC}-more")
    assert {"sequence gap"} == verdict.kinds
    assert "status-more/0" in verdict.findings[0].detail


def test_a_wrong_checksum_is_damage(disk: Disk) -> None:
    """One bit of a value."""
    data = bytearray(b"".join(one_by_one(SENT, READ)))
    data[-1] ^= 1
    disk.write(bytes(data))

    assert {"damaged segment"} == disk.judge().kinds


def test_a_last_batch_that_is_cut_short_is_left_out_and_no_other(disk: Disk) -> None:
    """A broker was killed as it wrote, or is writing now."""
    sent, read = one_by_one(SENT, READ)
    assert 1 == disk.write(sent, read[:-5]).judge().batches
    assert 1 == disk.write(sent, read[:7]).judge().batches

    disk.write(encoded([DELIVERED], offset=2, sequence=2), base=2)
    with pytest.raises(DamagedSegmentError, match="cut short"):
        read_topic([disk.path], TOPIC)


def test_of_several_replicas_the_one_appended_to_last_is_judged(tmp_path: Path) -> None:
    """The newest leader's word, however long the others are."""
    old, lagging, new = (Disk(tmp_path / name) for name in ("old", "lagging", "new"))
    first = encoded([SENT], offset=0, sequence=0)
    old.write(first, *(encoded([READ], offset=offset, sequence=9) for offset in (1, 2)))
    lagging.write(first)
    new.write(first, encoded([DELIVERED], offset=1, sequence=1, leader_epoch=1))

    verdict = judge([old.path, lagging.path, new.path], TOPIC)

    assert verdict.ok, verdict.describe()
    assert 2 == verdict.records
    assert 3 == judge([lagging.path, old.path], TOPIC).records


def test_a_topic_that_is_not_there_is_an_error(disk: Disk) -> None:
    """Never a verdict without a fault."""
    disk.appended(0)
    with pytest.raises(FileNotFoundError, match="nothing"):
        judge([disk.path], "nothing")
