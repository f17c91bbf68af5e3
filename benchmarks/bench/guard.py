"""Has the bridge become clearly slower beside its peer than it was? For ``make bench-quick``."""

from pathlib import Path

import msgspec

from bench.figures import Sample, Spread, ratio
from bench.results import machine

STORED = Path(__file__).parents[1] / "ratios.json"
# A loss counts beyond this and the spread that was stored.
TOLERANCE = 0.2
# What is compared, and whether more is better.
COMPARED = {"reports_per_second": True, "cpu_us": False}
OURS, PEER = "bridge", "franz"


class Ratios(msgspec.Struct, frozen=True):
    """The bridge's figures by its peer's: by figure, then by reports in a callback."""

    machine: str
    ratios: dict[str, dict[int, Spread]]

    @classmethod
    def of(cls, samples: list[Sample]) -> "Ratios":
        """Of rounds of both."""
        sizes = sorted({sample.reports for sample in samples})

        def of(who: str, size: int) -> list[Sample]:
            return [each for each in samples if (each.contestant, each.reports) == (who, size)]

        def at(name: str, size: int) -> Spread:
            return ratio(of(OURS, size), of(PEER, size), name)

        return cls(machine(), {name: {size: at(name, size) for size in sizes} for name in COMPARED})

    @classmethod
    def stored(cls) -> "Ratios | None":
        """Those to compare with, if there are any."""
        return msgspec.json.decode(STORED.read_bytes(), type=cls) if STORED.exists() else None

    def store(self) -> None:
        """Be what later runs are compared with."""
        STORED.write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")


def losses(now: Ratios, stored: Ratios) -> list[str]:
    """A sentence for each ratio that is clearly worse than what was stored."""
    found = []
    for name, more_is_better in COMPARED.items():
        for size, new in now.ratios.get(name, {}).items():
            old = stored.ratios.get(name, {}).get(size)
            if old is None:
                continue
            worst = old.least * (1 - TOLERANCE) if more_is_better else old.greatest * (1 + TOLERANCE)
            if (new.median < worst) if more_is_better else (new.median > worst):
                was = f"was {old.median:.2f} ({old.least:.2f} to {old.greatest:.2f})"
                found.append(f"{name} at {size} reports: {new.median:.2f} of {PEER}'s, {was}")
    return found
