"""``chatapp-bridge simulate``: a campaign, pushed to a URL, and what became of it.

Anyone may point it at a deployment of theirs, so it is careful with what isn't this machine: it has to be
allowed, and then pushes statuses that consumers are told to ignore, and nothing that would have to be
quarantined.
"""

import argparse
import asyncio
import gc
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console

from bridge.errors import ConfigurationError
from bridge.lab.simulate.campaign import Campaign, CampaignOptions, Mix
from bridge.lab.simulate.connection import Target
from bridge.lab.simulate.console import Progress, print_summary, progress
from bridge.lab.simulate.ledger import Ledger, Summary
from bridge.lab.simulate.provider import Provider, ProviderOptions
from bridge.lab.simulate.push import Push

TEST_STATUS = "BridgeTest"
"""The status that the contract tells consumers to ignore."""

_DEFAULT_MESSAGES = 1000
_CONNECTIONS_UNPACED = 32
_CONNECTIONS_PACED = 512
_PROGRESS_EVERY_SECONDS = 0.5
_MS_PER_SECOND = 1000
_EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130


def new_run() -> str:
    """What the message ids of a run start with: its time to the microsecond, 20 digits no other run has."""
    now_ns = time.time_ns()
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(now_ns // 10**9)) + f"{now_ns // 1000 % 10**6:06d}"


class SimulateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. Wrong or contradictory values raise ConfigurationError where they are used.

    ``url`` is the callback URL, secret included; it is never shown. ``rate`` is reports/s and
    ``callback_rate`` callbacks/s, one of them at most; without either, as fast as the connections take them.
    ``messages`` defaults to 1000 unless ``duration_seconds`` ends the run. ``size``: least and greatest
    number of reports in a callback. ``connections`` None: 512 at a rate (they are opened when needed), 32
    without. ``allow_remote`` and ``real_statuses`` matter where the host isn't this machine. ``ca_file``:
    authorities to trust for https.
    """

    url: str
    messages: int | None = None
    rate: float | None = None
    callback_rate: float | None = None
    size: tuple[int, int] = (10, 10)
    duration_seconds: float | None = None
    seed: int = 1
    run: str = msgspec.field(default_factory=new_run)
    mix: Mix = Mix()
    retry_scale: float = 1.0
    answer_timeout_seconds: float = 3.0
    connections: int | None = None
    ordered: bool = False
    allow_remote: bool = False
    real_statuses: bool = False
    ca_file: Path | None = None

    def __repr__(self) -> str:
        return f"SimulateOptions(run={self.run!r}, seed={self.seed})"  # never the URL: it holds the secret

    @property
    def paced(self) -> bool:
        """Whether pushes have times."""
        return self.rate is not None or self.callback_rate is not None

    def target(self) -> Target:
        """Where to push. Raises ConfigurationError if that isn't this machine and wasn't allowed."""
        target = Target.parse(self.url)
        if not (target.is_local or self.allow_remote):
            raise ConfigurationError(
                f"{target.host} is not this machine: what is pushed there is published there, and billing"
                " would charge what it sends. --allow-remote pushes all the same, with the status"
                f" {TEST_STATUS}, which consumers ignore, unless --real-statuses is given too"
            )
        return target

    def campaign(self) -> CampaignOptions:
        """What to push."""
        forced = not (self.real_statuses or self.target().is_local)
        messages, max_reports = self.messages, None
        if self.duration_seconds is not None:
            if self.duration_seconds <= 0:
                raise ConfigurationError(f"duration is {self.duration_seconds}: above 0 seconds")
            max_reports = sys.maxsize
        elif messages is None:
            messages = _DEFAULT_MESSAGES
        return CampaignOptions(
            messages=messages,
            max_reports=max_reports,
            seed=self.seed,
            run=self.run,
            size=self.size,
            reports_per_second=self.rate,
            callbacks_per_second=self.callback_rate,
            mix=msgspec.structs.replace(self.mix, undecodable=0, truncated=0) if forced else self.mix,
            status=TEST_STATUS if forced else None,
            started_at_ms=int(time.time() * _MS_PER_SECOND),
        )

    def provider(self) -> ProviderOptions:
        """How to push."""
        tls = None
        if self.ca_file is not None:
            try:
                tls = ssl.create_default_context(cafile=self.ca_file)
            except OSError as error:
                raise ConfigurationError(f"{self.ca_file} can't be read as certificates") from error
        connections = self.connections
        if connections is None:
            connections = _CONNECTIONS_PACED if self.paced else _CONNECTIONS_UNPACED
        return ProviderOptions(
            connections=connections,
            retry_scale=self.retry_scale,
            answer_timeout_seconds=self.answer_timeout_seconds,
            ordered=self.ordered,
            tls=tls,
        )


async def simulate(
    options: SimulateOptions,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    ledger: Ledger | None = None,
) -> Summary:
    """Push a campaign until each push is acknowledged or given up.

    ``on_progress`` is called twice a second. A ``ledger`` of the caller's has all the details afterwards, or
    when this is cancelled. Raises ConfigurationError before anything is sent, OSError if the ledger can't be
    written.
    """
    ledger = ledger if ledger is not None else Ledger()
    pushes: Iterable[Push] = Campaign(options.campaign()).pushes()
    provider = Provider(options.target(), ledger, options.provider())
    if options.duration_seconds is not None:
        pushes = _for_seconds(pushes, options.duration_seconds)
    ticker = asyncio.create_task(_tick(provider, ledger, on_progress)) if on_progress is not None else None
    try:
        await provider.run(pushes)
    finally:
        if ticker is not None:
            ticker.cancel()
    return ledger.summary()


def _for_seconds(pushes: Iterable[Push], seconds: float) -> Iterator[Push]:
    """Those that are due within a duration; without times, those that are asked for within it."""
    end = time.monotonic() + seconds
    for push in pushes:
        if time.monotonic() >= end if push.at_seconds is None else push.at_seconds >= seconds:
            return
        yield push


async def _tick(provider: Provider, ledger: Ledger, on_progress: Callable[[Progress], None]) -> None:
    start = time.monotonic()
    while True:
        await asyncio.sleep(_PROGRESS_EVERY_SECONDS)
        on_progress(
            Progress(
                elapsed_seconds=time.monotonic() - start,
                pushes=len(ledger.entries),
                reports=ledger.reports,
                acknowledged=ledger.acknowledged_first + ledger.acknowledged_after_retry,
                waiting_for_retry=provider.waiting_for_retry,
                lost=ledger.lost,
            )
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("--url", required=True, help="the callback URL, with its secret (which is never shown)")
    add("--messages", type=int, metavar="N", help="messages, with two to three reports each (default: 1000)")
    add("--duration", type=float, metavar="SEC", help="stop after so many seconds")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=float, metavar="R", help="reports per second (default: as fast as possible)")
    pace.add_argument("--callback-rate", type=float, metavar="R", help="callbacks per second")
    add(
        "--size",
        type=_size,
        default=(10, 10),
        metavar="N",
        help="reports in a callback: 10, or 1-1000 (default: 10)",
    )
    add("--seed", type=int, default=1, help="the same seed gives the same messages (default: 1)")
    add("--run", help="what every message id starts with (default: digits no other run has)")
    add("--retry-scale", type=float, default=1.0, metavar="F", help="times 1 and 5 minutes (default: 1)")
    add("--connections", type=int, metavar="N", help="at most so many (default: 512 at a rate, else 32)")
    add("--ordered", action="store_true", help="never two callbacks with a message in common at once")
    add(
        "--plain",
        action="store_true",
        help="only what the provider's page documents: nothing odd, nothing broken",
    )
    add("--ledger", type=Path, metavar="FILE", help="write every attempt to this new file, as NDJSON")
    add("--ca-file", type=Path, metavar="PEM", help="authorities to trust for https (default: the system's)")
    add("--allow-remote", action="store_true", help="push to a host that isn't this machine")
    add("--real-statuses", action="store_true", help=f"push real statuses there, not {TEST_STATUS}")


def _size(text: str) -> tuple[int, int]:
    least, _, greatest = text.partition("-")
    try:
        return int(least), int(greatest or least)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: a number, or the least and the greatest as in 1-1000") from None


def main(args: argparse.Namespace) -> int:
    """Run the command. 0: every push was acknowledged; 1: some were not; 2: it can't be run as asked."""
    console = Console()
    try:
        options = _options(args)
        target = options.target()
        options.campaign()  # whatever is wrong in it is said before a ledger is made
        provider = options.provider()
        ledger = Ledger(args.ledger)
    except ConfigurationError as error:
        return _fail(error, _EXIT_USAGE)
    said = f"Pushing to {target}, connections: {provider.connections}, message ids start with {options.run}"
    console.print(said, markup=False, highlight=False, soft_wrap=True)
    interrupted = False
    try:
        with (
            _no_full_collections(),
            progress(console) as show,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(simulate(options, show, ledger=ledger))
    except KeyboardInterrupt:
        interrupted = True
    except OSError as error:
        return _fail(error, 1)
    finally:
        ledger.close()
    summary = ledger.summary()
    print_summary(console, summary)
    if interrupted:
        return _EXIT_INTERRUPTED
    return 0 if summary.ok else 1


@contextmanager
def _no_full_collections() -> Iterator[None]:
    """Keep the growing ledger out of garbage collections, which would stop every push in flight."""
    thresholds = gc.get_threshold()
    gc.set_threshold(thresholds[0], thresholds[1], 1_000_000)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def _fail(error: Exception, code: int) -> int:
    Console(stderr=True).print(f"simulate: {error}", markup=False, highlight=False, soft_wrap=True)
    return code


def _options(args: argparse.Namespace) -> SimulateOptions:
    return SimulateOptions(
        url=args.url,
        messages=args.messages,
        rate=args.rate,
        callback_rate=args.callback_rate,
        size=args.size,
        duration_seconds=args.duration,
        seed=args.seed,
        run=args.run if args.run is not None else new_run(),
        mix=Mix.plain() if args.plain else Mix(),
        retry_scale=args.retry_scale,
        connections=args.connections,
        ordered=args.ordered,
        allow_remote=args.allow_remote,
        real_statuses=args.real_statuses,
        ca_file=args.ca_file,
    )
