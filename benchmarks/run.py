"""Measures callbacks on this machine: the bridge, its peers, Kafka's own producer. See docs/performance.md.

Every contestant gets the same load in turn, in several rounds; ratios are made round by round. All of it shares this machine's
cores, so ratios say more than rates. What is found is kept in var/bench/results.json, leg by leg; --write puts it into
docs/performance.md and its pictures.
"""

import argparse
import asyncio
import sys

from bench import legs
from bench.contestants import CONTESTANTS
from bench.guard import OURS, PEER, STORED, Ratios, losses
from bench.load import PLAIN, USUAL
from bench.produce import produce
from bench.report import write
from bench.results import Results, machine

QUICK_SIZES, QUICK_ROUNDS, QUICK_SECONDS = [1, 10, 100], 3, 2.5
LEGS = ("closed", "produce", "open", "outage", "scale", "soak", "start")
RECORDS = 1_000_000


async def measure(chosen: list[str], options: argparse.Namespace) -> None:
    """Leg after leg; each is kept as soon as it is there."""
    names: list[str] = options.contestants.split(",")
    delivering = [name for name in names if CONTESTANTS[name].delivers]
    sizes = [int(size) for size in options.sizes.split(",")]
    count, seconds = options.rounds, options.seconds
    results = Results.kept()
    for leg in chosen:
        print(f"-- {leg}", flush=True)
        match leg:
            case "closed":
                results.put(leg, await legs.closed(names, sizes, count, seconds))
            case "open":
                results.put(leg, await legs.open_loop(delivering, count, 2 * seconds))
            case "outage":
                results.put(leg, await legs.outage(count, seconds))
            case "scale":
                results.put(leg, await legs.scale(count, seconds))
            case "soak":
                results.put(leg, await legs.soak(options.soak))
            case "produce":
                results.produced = await produce(count, options.records)
                results.show(leg)
            case _:
                results.start_seconds = await legs.start_time(max(count, 5))
                results.show(leg)
        results.keep()


async def quick(*, store: bool, plain: bool) -> int:
    """Bridge and peer alone, for two minutes; 1 where the bridge clearly lost."""
    style = PLAIN if plain else USUAL
    samples = await legs.closed([OURS, PEER], QUICK_SIZES, QUICK_ROUNDS, QUICK_SECONDS, style)
    if {sample.contestant for sample in samples} != {OURS, PEER}:
        sys.exit(f"there is nothing to compare: {OURS} and {PEER} both have to be measured, see above")
    now = Ratios.of(samples)
    for name, by_size in now.ratios.items():
        for size, of in by_size.items():
            print(f"{name:20} {size:4} reports: {of.median:.2f} of {PEER}'s ({of.least:.2f} to {of.greatest:.2f})")
    if store:
        now.store()
        return 0
    stored = Ratios.stored()
    if stored is None:
        print(f"nothing to compare with: {STORED} is not there; --store makes it")
        return 0
    if stored.machine != now.machine:
        print(f"the ratios to compare with are of another machine: {stored.machine}")
    found = losses(now, stored)
    print("\n".join(["clearly worse than it was:", *found]) if found else "no clear loss")
    return 1 if found else 0


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ",".join(CONTESTANTS)
    parser.add_argument("--legs", default=",".join(LEGS), metavar="LEG,…", help="of %(default)s (default: all)")
    parser.add_argument("--contestants", default=known, metavar="NAME,…", help=f"of {known} (default: all)")
    parser.add_argument(
        "--sizes", default="1,10,100,1000", metavar="N,…", help="reports a callback (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round (default: %(default)s)")
    parser.add_argument("--soak", type=float, default=3.0, metavar="MILLIONS", help="of reports (default: %(default)s)")
    parser.add_argument(
        "--records", type=int, default=RECORDS, help="that ProducerPerformance sends (default: %(default)s)"
    )
    parser.add_argument("--write", action="store_true", help="docs/performance.md anew; with --legs '' only that")
    parser.add_argument("--quick", action="store_true", help=f"compare {OURS} and {PEER} with {STORED.name} instead")
    parser.add_argument("--store", action="store_true", help="with --quick: be what later runs are compared with")
    parser.add_argument("--plain", action="store_true", help="with --quick: no report has text beyond plain ASCII")
    options = parser.parse_args()
    chosen = [leg for leg in options.legs.split(",") if leg]
    for what, given, may in (("leg", chosen, LEGS), ("contestant", options.contestants.split(","), CONTESTANTS)):
        if unknown := set(given) - set(may):
            sys.exit(f"no such {what}: {', '.join(sorted(unknown))}")
    if chosen or options.quick:
        print(machine(), flush=True)
    if options.quick:
        sys.exit(asyncio.run(quick(store=options.store, plain=options.plain)))
    asyncio.run(measure(chosen, options))
    if options.write:
        write(Results.kept())


if __name__ == "__main__":
    main()
