"""Measures callbacks on this machine: the bridge, its peers, Kafka's own producer. See docs/performance.md.

Every contestant gets the same load in turn, in several rounds; ratios are made round by round. All of it shares this machine's
cores, so ratios say more than rates.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from bench.contestants import CONTESTANTS
from bench.figures import Sample
from bench.measure import Running, Shape, Stage, rounds, stage
from bench.same import differences

BROKER_WARM_SECONDS = 10.0


async def check_same(of: list[Running], here: Stage) -> None:
    """See that whoever claims the bridge's work makes its records.

    Raises:
        SystemExit: one doesn't.
    """
    bridge = next((each for each in of if each.contestant.name == "bridge"), None)
    for peer in of if bridge is not None else []:
        if bridge is not None and peer.contestant.same:
            different = await asyncio.to_thread(differences, bridge, peer, here.kafka.bootstrap_servers)
            if different:
                sys.exit("\n".join([f"{peer.contestant.name} makes other records than the bridge:", *different[:4]]))
            print(f"{peer.contestant.name} makes the same records as the bridge", flush=True)


async def closed(names: list[str], sizes: list[int], count: int, seconds: float) -> list[Sample]:
    """32 connections, each with the next callback when the last is answered; on a Kafka of one node."""
    with tempfile.TemporaryDirectory(prefix="chatapp-bridge-bench-") as name:
        async with stage(Path(name)) as here:
            of = [each for each in [await here.enter(CONTESTANTS[name]) for name in names] if each is not None]
            await check_same(of, here)
            await of[0].warm(BROKER_WARM_SECONDS)
            return [sample for size in sizes for sample in await rounds(of, count, Shape("closed", size, seconds))]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ",".join(CONTESTANTS)
    parser.add_argument("--contestants", default=known, metavar="NAME,…", help=f"of {known} (default: all)")
    parser.add_argument(
        "--sizes", default="1,10,100,1000", metavar="N,…", help="reports in a callback (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round (default: %(default)s)")
    options = parser.parse_args()
    names = options.contestants.split(",")
    if unknown := set(names) - set(CONTESTANTS):
        sys.exit(f"no such contestant: {', '.join(unknown)}")
    sizes = [int(size) for size in options.sizes.split(",")]
    asyncio.run(closed(names, sizes, options.rounds, options.seconds))


if __name__ == "__main__":
    main()
