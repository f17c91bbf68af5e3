"""Measures how batches compress on this machine: ``python benchmarks/compression.py [--reports 20000]``.

The records of a simulated campaign, as JSON and as Avro, in batches of several sizes, by each codec that Kafka knows at the
levels that come into question: microseconds a record, bytes a record, and how many times smaller a batch is.
"""

import argparse
import time
from collections.abc import Callable
from typing import Literal

import cramjam
from aiokafka.codec import lz4_encode, snappy_encode, zstd_encode

from bridge.encode.records import RecordEncoder
from bridge.encode.values import value_format
from bridge.kafka.batch import Batch, Numbers
from bridge.lab.simulate.campaign import Campaign, CampaignOptions, Mix
from bridge.record import Record

HEAD_BYTES = 61
BATCH_RECORDS = (3, 30, 300)
RECEIVED_AT_MS = 1_764_000_000_000


def _lz4(level: int) -> Callable[[bytes], bytes]:
    return lambda records: lz4_encode(records, level=level)


def _zstd(level: int) -> Callable[[bytes], bytes]:
    return lambda records: bytes(cramjam.zstd.compress(records, level=level))


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "snappy": snappy_encode,
    "lz4, level 1": _lz4(1),
    "lz4, level 9": _lz4(9),
    "zstd, level 1": _zstd(1),
    "zstd, level 3": zstd_encode,
}


def _records(form: Literal["json", "avro"], reports: int) -> list[Record]:
    encoder = RecordEncoder("events", "quarantine", "/callbacks", 1 << 20, value_format(form, registry=False))
    options = CampaignOptions(messages=None, max_reports=reports, size=(10, 10), mix=Mix.usual())
    made: list[Record] = []
    for number, push in enumerate(Campaign(options).pushes()):
        made += encoder.encode_body(
            push.body, callback_id=f"0123456789abcdef-{number}", received_at_ms=RECEIVED_AT_MS, traceparent=None
        ).records
    return made


def _batches(records: list[Record], size: int) -> list[bytes]:
    """The records' part of each batch, uncompressed."""
    built = []
    for start in range(0, len(records) - size + 1, size):
        batch = Batch("topic", 0, "none", 1 << 30)
        batch.extend(records[start : start + size])
        batch.numbers = Numbers(1, 0, 0)
        built.append(batch.encoded()[HEAD_BYTES:])
    return built


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=20_000)
    options = parser.parse_args()
    print(f"{'value':6} {'records':>7}  {'codec':14} {'us a record':>11} {'bytes':>6} {'smaller':>8}")
    forms: tuple[Literal["json", "avro"], ...] = ("json", "avro")
    for form in forms:
        records = _records(form, options.reports)
        for size in BATCH_RECORDS:
            batches = _batches(records, size)
            count, plain = len(batches) * size, sum(map(len, batches))
            for name, encode in CODECS.items():
                began = time.process_time()
                compressed = sum(len(encode(batch)) for batch in batches)
                micros = (time.process_time() - began) / count * 1e6
                print(
                    f"{form:6} {size:>7}  {name:14} {micros:>11.2f} {compressed / count:>6.0f} {plain / compressed:>7.1f}x"
                )


if __name__ == "__main__":
    main()
