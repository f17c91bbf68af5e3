"""What leniency costs the whole bridge: ``python benchmarks/lenient.py``.

Pushes three loads in turn at one bridge: the benchmarks' usual one, plain reports alone, and bodies that all have to be read
leniently: a comma behind the last field of each report and behind the last report, and a raw line break in each report.
Prints requests/s of each and their ratios to the usual load, round by round; it fails where the lenient ones run at less
than half of it.
"""

import argparse
import asyncio
import sys

from bench import legs
from bench.figures import Sample, Spread, ratio, spread
from bench.results import machine

LEAST = 0.5


def of(samples: list[Sample], name: str, size: int) -> list[Sample]:
    """The rounds of one load at one size."""
    return [sample for sample in samples if (sample.contestant, sample.reports) == (name, size)]


def shown(value: Spread, form: str) -> str:
    """Median, least and greatest."""
    return f"{value.median:{form}} ({value.least:{form}} to {value.greatest:{form}})"


def main() -> None:
    """Measure, print; 1 where leniency costs too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,10,100", metavar="N,…", help="reports a callback (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a round (default: %(default)s)")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    print(machine(), flush=True)
    samples = asyncio.run(legs.lenient(sizes, options.rounds, options.seconds))
    print("| reports a callback | load | requests/s | of the usual load's | CPU, us a report |")
    print("| ---: | --- | ---: | ---: | ---: |")
    too_slow = False
    for size in sizes:
        usual = of(samples, "usual", size)
        for name in legs.STYLES:
            found = of(samples, name, size)
            share = ratio(found, usual, "requests_per_second")
            rate, cpu = spread(found, "requests_per_second"), spread(found, "cpu_us")
            print(f"| {size} | {name} | {rate.median:,.0f} | {shown(share, '.2f')} | {shown(cpu, '.1f')} |")
            too_slow |= name == "lenient" and share.median < LEAST
    refused = sum(sum(sample.other.values()) for sample in samples)
    lost = sum(max(0, sample.acknowledged - (sample.delivered or 0)) for sample in samples)
    if refused or lost:
        print(f"{refused} answers that were not 200, {lost} reports lost")
    sys.exit(bool(too_slow or refused or lost))


if __name__ == "__main__":
    main()
