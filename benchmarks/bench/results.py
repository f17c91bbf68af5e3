"""What a run found, kept as JSON, so that tables and pictures can be made anew without measuring."""

import datetime as dt
import os
import platform
import subprocess
from pathlib import Path

import msgspec

from bench.figures import Sample, Spread

KEPT = Path(__file__).parents[2] / "var" / "bench" / "results.json"


class Produced(msgspec.Struct, frozen=True):
    """What Kafka's own ProducerPerformance did with one compression."""

    compression: str
    records_per_second: Spread
    #: of its process, the start of its JVM included
    cpu_us: Spread
    bytes_each: int


class Results(msgspec.Struct):
    """All legs; a leg that is measured again replaces what was there of it."""

    machine: str = ""
    samples: list[Sample] = []
    produced: list[Produced] = []
    #: of the bridge, seconds until /readyz says 200
    start_seconds: Spread | None = None
    #: of the legs, when and at which commit each was measured
    measured: dict[str, str] = {}

    def legs(self) -> dict[str, list[Sample]]:
        """Samples by leg."""
        found: dict[str, list[Sample]] = {}
        for sample in self.samples:
            found.setdefault(sample.leg, []).append(sample)
        return found

    def put(self, leg: str, samples: list[Sample]) -> None:
        """In place of what was there of these sizes in this leg, of all contestants: ratios are of one run."""
        again = {(each.leg, each.reports) for each in samples}
        kept = [each for each in self.samples if (each.leg, each.reports) not in again]
        self.samples = kept + samples
        self.show(leg)

    def show(self, leg: str) -> None:
        """Note when the leg was measured."""
        git = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(git, capture_output=True, text=True, check=False, cwd=Path(__file__).parent).stdout  # noqa: S603
        self.machine = machine()
        self.measured[leg] = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {commit.strip() or 'no commit'}"

    def keep(self) -> None:
        """Write it."""
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(self)))

    @classmethod
    def kept(cls) -> "Results":
        """What was written, or nothing."""
        return msgspec.json.decode(KEPT.read_bytes(), type=cls) if KEPT.exists() else cls()


def machine() -> str:
    """One line: processor, cores, memory, kernel, versions."""
    processor = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?"
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0) / (
        1 << 20
    )
    cores = os.cpu_count()
    return (
        f"{processor}, {cores} cores, {memory:.0f} GiB; Linux {platform.release()}; Python {platform.python_version()}"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
