"""``chatapp-bridge replay``: plan, show the plan, and do it where that was asked for. Its options: ``options.py``."""

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from bridge import config
from bridge.errors import BridgeError, ConfigurationError
from bridge.operate import console
from bridge.operate.console import duration
from bridge.operate.ndjson import EventOf, undecodable_notice
from bridge.operate.progress import Progress
from bridge.operate.reading.events import decoder_of
from bridge.operate.reading.inspector import ClusterInspector
from bridge.operate.reading.reader import BATCH_RECORDS, Reader, TopicChangedError
from bridge.operate.reading.select import EARLIEST, LATEST, filters_of, parse_bound, topic_named
from bridge.operate.replay.destination import Context, Destination
from bridge.operate.replay.destinations import destination_of, destination_of_run, find_state
from bridge.operate.replay.plan import Ranges, described, expectation, find_ranges, take_sample
from bridge.operate.replay.state import Run, State, new_run_id
from bridge.operate.replay.transfer import Choose, Pace, Stop, batch_records, chooser, transfer

EXIT_EXPIRED: Final = 3
"""The replay is done, but some of what was asked for had expired."""
# The options that say what a run is, and how they are typed.
_ASKED: Final = {
    "low": "--from",
    "high": "--to",
    "topic": "--topic",
    "key": "--key",
    "status": "--status",
    "error_category": "--error-category",
    "template": "--template",
    "sender": "--sender",
    "reason": "--reason",
    "at_least_once": "--at-least-once",
}


class _Job(NamedTuple):
    """What is to be done; ``ranges`` only where the plan was made just now, and no run is resumed."""

    state: State
    destination: Destination
    ranges: Ranges | None = None
    notes: Sequence[str] = ()

    @property
    def run(self) -> Run:
        return self.state.run

    @property
    def settings(self) -> config.Settings:
        return self.destination.context.settings


def main(options: argparse.Namespace) -> int:
    """Show the plan; with ``--execute``, do it. Exit codes: docs/replay.md.

    Raises:
        BridgeError: it could not be done, or not to the end; says how to go on.
    """
    try:
        return _run(options)
    except KeyboardInterrupt:
        console.say(
            "stopped; what was not committed counts for nothing, --resume goes on with a run whose id was shown"
        )
        return console.exit_code_of(signal.SIGINT)
    except BrokenPipeError:
        console.discard_output()
        return console.EXIT_FAILED


def _run(options: argparse.Namespace) -> int:
    settings = config.load(options.config, assignments=options.set).settings
    with ClusterInspector(settings.kafka, options.timeout) as inspector:
        context = Context(settings, inspector, options.timeout, options.allow_own_topic, options.execute)
        job = _resumed(options, context) if options.resume else _planned(options, context)
        if options.resume and job.state.left == 0:
            written = f"{job.state.written:,} records were written to {job.destination.describe(job.run)}"
            console.say(f"run {job.run.id} is complete: {written}")
            return console.EXIT_DONE
        decoder = decoder_of(settings, job.run.topic)
        look = None if decoder is None else EventOf(decoder)
        choose = chooser(job.run, job.run.filters.predicate(look) if job.run.filters else None)
        try:
            if options.execute or not job.destination.needs_execute:
                return _execute(options, job, choose)
            _print_plan(options, job, choose, executes=False)
            return console.EXIT_DONE
        finally:
            if look is not None and look.undecodable:
                console.say(look.notice())


# --- planning ---------------------------------------------------------------------------------------------------------


def _planned(options: argparse.Namespace, context: Context) -> _Job:
    topics = context.settings.topics
    low, high = _bounds(options)
    topic = topic_named(options.topic, topics)
    filters = filters_of(options)
    if filters.need_an_event and topic == topics.quarantine:
        raise ConfigurationError(
            "--status, --error-category, --template and --sender: what is quarantined has none; use --key or --reason"
        )
    if options.at_least_once and not options.to_topic:
        raise ConfigurationError("--at-least-once is for --to-topic TOPIC; leave it out")
    destination = destination_of(options, context)
    run = Run(
        id=new_run_id(),
        topic=topic,
        made_at_ms=parse_bound("now").time_ms or 0,
        from_ms=low.time_ms,
        to_ms=high.time_ms,
        filters=filters,
        asked={name: _typed(getattr(options, name)) for name in _ASKED if getattr(options, name)},
        **destination.recorded(),
    )
    notes = destination.check(run)
    ranges = find_ranges(context.inspector, topic, low, high)
    positions = {partition: start for partition, (start, _) in ranges.chosen.items()}
    state = State(run=run, ranges=ranges.chosen, positions=positions)
    return _Job(state, destination, ranges, notes=notes)


def _bounds(options: argparse.Namespace) -> tuple[Any, Any]:
    low = options.low or parse_bound(EARLIEST)
    high = options.high or parse_bound(LATEST)
    if low.time_ms is not None and high.time_ms is not None and low.time_ms >= high.time_ms:
        raise ConfigurationError(f"--from {low} is not before --to {high}")
    for partition, offset in (low.offsets or {}).items():
        end = (high.offsets or {}).get(partition)
        if end is not None and offset >= end:
            raise ConfigurationError(f"--from {low.text}: {offset:,} is not before {end:,} of --to {high.text}")
    return low, high


def _typed(value: Any) -> Any:
    """An option as it was typed, or near enough to compare it."""
    return getattr(value, "text", value)


def _print_plan(options: argparse.Namespace, job: _Job, choose: Choose | None, *, executes: bool) -> None:
    destination = job.destination
    out = sys.stderr if destination.uses_standard_output else sys.stdout
    state = job.state
    if job.ranges is None:
        done = f"{state.read:,} records read and {state.written:,} written before"
        left = f"at most {state.left:,} left to read from {job.run.topic}"
        console.show(f"run         {job.run.id}, taken up: {done}, {left}", out=out)
        console.show(f"write       {destination.describe(job.run)}", out=out)
    else:
        console.show(*described(state, job.ranges, *_bounds(options), destination.describe(job.run)), out=out)
        console.show(*(f"note        {note}" for note in job.notes), out=out)
        if not executes:
            encoder = destination.lines(job.run.topic)
            sample = take_sample(job.settings.kafka, job.run.topic, job.ranges, choose, encoder)
            filtered = choose is not None
            lines = expectation(job.ranges, sample, filtered=filtered, cost=destination.cost, rate=options.rate)
            console.show(*lines, out=out)
    if not executes:
        plan = f"This is the plan; nothing was written. --execute does it.{destination.missing()}"
        console.show("", plan, out=out)


# --- resuming ---------------------------------------------------------------------------------------------------------


def _resumed(options: argparse.Namespace, context: Context) -> _Job:
    state = find_state(options.resume, options, context)
    for name, flag in _ASKED.items():
        given = _typed(getattr(options, name))
        if given and given != state.run.asked.get(name):
            raise ConfigurationError(f"{flag}: run {state.run.id} was begun with another; leave it out")
    return _Job(state, destination_of_run(state.run, options, context))


# --- doing ------------------------------------------------------------------------------------------------------------


def _execute(options: argparse.Namespace, job: _Job, choose: Choose | None) -> int:
    destination, run = job.destination, job.run
    with Stop.on_signals() as stop:
        state = _begin(job)
        try:
            with Reader(
                job.settings.kafka,
                run.topic,
                state.rest,
                group=destination.group(run),
                timeout_seconds=options.timeout,
                batch_records=batch_records(options.rate, BATCH_RECORDS),
            ) as reader:
                destination.attend(reader.consumer)
                # From here on whoever knows the run's id can resume it, whatever happens.
                destination.commit(state)
                _print_plan(options, job, choose, executes=True)
                pace = Pace(options.rate)
                with Progress(state.left, state.read) as progress:
                    transfer(reader, destination, state, choose=choose, pace=pace, progress=progress, stop=stop)
                _say_what_was_done(job, state, reader, progress.seconds)
        except BrokenPipeError:
            console.discard_output()
            console.say(f"whoever read the output went away, after {state.written:,} records at least")
            return console.EXIT_FAILED
        except TopicChangedError:
            raise
        except BridgeError as error:
            raise type(error)(f"{error}\n  {destination.how_to_go_on(state)}") from error
        finally:
            destination.close()
        if stop.signal is not None and state.left:
            console.say(f"stopped by {signal.Signals(stop.signal).name}; {destination.how_to_go_on(state)}")
            return console.exit_code_of(stop.signal)
    expired = reader.gaps or (job.ranges is not None and job.ranges.gone)
    return EXIT_EXPIRED if expired else console.EXIT_DONE


def _begin(job: _Job) -> State:
    """Open the destination: how far the run is now that no other process can write for it."""
    if job.ranges is None:
        return job.destination.resume(job.state)
    job.destination.open(job.state)
    return job.state


def _say_what_was_done(job: _Job, state: State, reader: Reader, seconds: float) -> None:
    console.show(*job.destination.report())
    outcome = job.destination.outcome(job.run)
    console.say(f"{state.read:,} records read, {state.written:,} {outcome}, in {duration(seconds)}")
    if notice := undecodable_notice(state.undecodable):
        console.say(notice)
    for gap in reader.gaps:
        console.say(
            f"partition {gap.partition}: {gap.end - gap.start:,} offsets from {gap.start:,} on expired before they were read"
        )
