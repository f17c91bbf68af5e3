"""``chatapp-bridge replay``: plan, show the plan, and do it where that was asked for. Its options: ``options.py``."""

import argparse
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from confluent_kafka import Message

from bridge import config
from bridge.errors import BridgeError, ConfigurationError, ReplayError
from bridge.headers import CE_TYPE, QUARANTINE_REASON
from bridge.operate import console
from bridge.operate.console import duration
from bridge.operate.ndjson import EventOf, Lines
from bridge.operate.progress import Progress
from bridge.operate.reading.client import BATCH_RECORDS, ClusterInspector, Reader, TopicChangedError
from bridge.operate.reading.events import decoder_of
from bridge.operate.reading.select import (
    EARLIEST,
    LATEST,
    filters_of,
    header,
    parse_bound,
    topic_named,
)
from bridge.operate.replay.files import (
    STANDARD_OUTPUT,
    Checkpoint,
    FileSink,
    Sink,
    StreamSink,
    check_new,
    is_stream,
    read_checkpoint,
)
from bridge.operate.replay.plan import Ranges, described, expectation, find_ranges, take_sample
from bridge.operate.replay.state import Run, State, group_of, new_run_id, to_offsets
from bridge.operate.replay.target import check_target, find_run, open_target
from bridge.operate.replay.transfer import Choose, Pace, Stop, batch_records, chooser, transfer

GONE: Final = 3
"""Exit code of a replay that is done, but for what had expired."""
_MOST_RECORDS: Final = 10**18
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
}


class _Job(NamedTuple):
    """What is to be done; ``ranges`` only where the plan was made just now."""

    state: State
    settings: config.Settings
    ranges: Ranges | None = None
    checkpoint: Checkpoint | None = None
    notes: Sequence[str] = ()

    @property
    def run(self) -> Run:
        return self.state.run


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
    with ClusterInspector(settings.kafka, options.timeout) as asker:
        job = _taken_up(options, settings, asker) if options.resume else _planned(options, settings, asker)
        if options.resume and job.state.left == 0:
            console.say(
                f"run {job.run.id} is complete: {job.state.written:,} records were written to {_sink_name(job.run)}"
            )
            return 0
        decoder = decoder_of(settings, job.run.topic)
        look = None if decoder is None else EventOf(decoder)
        choose = chooser(job.run, job.run.filters.predicate(look) if job.run.filters else None)
        try:
            if options.execute or options.count:
                return _execute(options, job, choose, asker)
            _print_plan(options, job, choose)
            return 0
        finally:
            if look is not None and look.undecodable:
                console.say(look.notice())


# --- planning ---------------------------------------------------------------------------------------------------------


def _planned(options: argparse.Namespace, settings: config.Settings, asker: ClusterInspector) -> _Job:
    low, high = _bounds(options)
    topic = topic_named(options.topic, settings.topics)
    filters = filters_of(options)
    if filters.need_an_event and topic == settings.topics.quarantine:
        raise ConfigurationError(
            "--status, --error-category, --template and --sender: what is quarantined has none; use --key or --reason"
        )
    if options.execute and not (options.to_file or options.to_topic or options.count):
        raise ConfigurationError("--execute: nowhere to write to; give --to-file FILE, --to-topic TOPIC, or --count")
    if options.to_file and not is_stream(options.to_file):
        check_new(Path(options.to_file))
    ranges = find_ranges(asker, topic, low, high)
    notes = (
        []
        if options.to_topic is None
        else check_target(asker, settings, topic, options.to_topic, options.allow_own_topic)
    )
    run = Run(
        id=new_run_id(),
        topic=topic,
        made_at_ms=parse_bound("now").time_ms or 0,
        from_ms=low.time_ms,
        to_ms=high.time_ms,
        filters=filters,
        asked={name: _typed(getattr(options, name)) for name in _ASKED if getattr(options, name)},
        file=options.to_file,
        target=options.to_topic,
    )
    positions = {partition: start for partition, (start, _) in ranges.chosen.items()}
    state = State(run=run, ranges=ranges.chosen, positions=positions)
    if run.target is not None:
        to_offsets(
            msgspec.structs.replace(state, read=_MOST_RECORDS, written=_MOST_RECORDS)
        )  # fits, however far it comes
    return _Job(state, settings, ranges, notes=notes)


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


def _lines(job: _Job) -> Lines:
    """For a topic nothing is decoded: the bytes are copied, and a sample needs no registry either."""
    return Lines(job.run.topic, None if job.run.target else decoder_of(job.settings, job.run.topic))


def _print_plan(options: argparse.Namespace, job: _Job, choose: Choose | None) -> None:
    out = sys.stderr if job.run.file is not None and is_stream(job.run.file) else sys.stdout
    state = job.state
    if job.ranges is None:
        done = f"{state.read:,} records read and {state.written:,} written before"
        left = f"at most {state.left:,} left to read from {job.run.topic}"
        console.show(f"run         {job.run.id}, taken up: {done}, {left}", out=out)
        console.show(f"write       {_sink_name(job.run)}", out=out)
    else:
        for line in described(state, job.ranges, *_bounds(options), _sink_name(job.run)):
            console.show(line, out=out)
        for note in job.notes:
            console.show(f"note        {note}", out=out)
        if not options.execute and not options.count:
            sample = take_sample(job.settings.kafka, job.run.topic, job.ranges, choose, _lines(job))
            for line in expectation(
                job.ranges,
                sample,
                filtered=choose is not None,
                to_topic=job.run.target is not None,
                rate=options.rate,
            ):
                console.show(line, out=out)
    if not options.execute and not options.count:
        console.show("", out=out)
        console.show("This is the plan; nothing was written. --execute does it." + _missing_sink(job.run), out=out)


def _missing_sink(run: Run) -> str:
    return "" if run.file or run.target else " It needs --to-file FILE or --to-topic TOPIC as well."


def _sink_name(run: Run) -> str:
    if run.target is not None:
        return f"topic {run.target}, exactly once, each record with the header bridge_replay: {run.id}"
    if run.file is None:
        return "nowhere"
    return "standard output, as lines of JSON" if run.file == STANDARD_OUTPUT else f"{run.file}, as lines of JSON"


# --- taking up --------------------------------------------------------------------------------------------------------


def _taken_up(options: argparse.Namespace, settings: config.Settings, asker: ClusterInspector) -> _Job:
    checkpoint = _find_checkpoint(options.resume, options.to_file)
    state = checkpoint.state if checkpoint else find_run(asker, settings.kafka.client_id, options.resume)
    if state is None:
        # Its first transaction may be committed and not yet told to the group's coordinator.
        state = find_run(asker, settings.kafka.client_id, options.resume, stable=True)
    if state is None:
        raise ReplayError(
            f"there is no run {options.resume}: neither a checkpoint of it in this directory (--to-file names its file), nor a "
            "group on Kafka; if it was never begun, start it anew"
        )
    for name, typed in _ASKED.items():
        given = _typed(getattr(options, name))
        if given and given != state.run.asked.get(name):
            raise ConfigurationError(f"{typed}: run {state.run.id} was begun with another; leave it out")
    if options.count:
        raise ConfigurationError(f"--count: run {state.run.id} writes to {_sink_name(state.run)}; leave it out")
    if options.to_file and (
        state.run.file is None or Path(options.to_file).absolute() != Path(state.run.file).absolute()
    ):
        raise ConfigurationError(f"--to-file: run {state.run.id} writes to {_sink_name(state.run)}; leave it out")
    if options.to_topic not in {None, state.run.target}:
        raise ConfigurationError(f"--to-topic: run {state.run.id} writes to {_sink_name(state.run)}; leave it out")
    return _Job(state, settings, checkpoint=checkpoint)


def _find_checkpoint(run: str, file: str | None) -> Checkpoint | None:
    """Beside the file that was named, beside one that is named for a run, or in this directory."""
    named = Path(run.removesuffix(".checkpoint"))
    if (found := read_checkpoint(named)) is not None:
        return _at(found, named)
    if file and (found := read_checkpoint(Path(file))) is not None and found.state.run.id == run:
        return _at(found, Path(file))
    for path in sorted(Path().glob("*.checkpoint")):
        try:
            found = read_checkpoint(path.with_suffix(""))
        except ReplayError:
            continue  # another program's, perhaps
        if found is not None and found.state.run.id == run:
            return _at(found, path.with_suffix(""))
    return None


def _at(checkpoint: Checkpoint, file: Path) -> Checkpoint:
    """The file may have been moved since, its checkpoint with it."""
    checkpoint.state.run = msgspec.structs.replace(checkpoint.state.run, file=str(file))
    return checkpoint


# --- doing ------------------------------------------------------------------------------------------------------------


def _execute(options: argparse.Namespace, job: _Job, choose: Choose | None, asker: ClusterInspector) -> int:
    state, kafka = job.state, job.settings.kafka
    with Stop.on_signals() as stop:
        sink, state = _open(options, job, asker)
        try:
            with Reader(
                kafka,
                job.run.topic,
                state.rest,
                group=group_of(kafka.client_id, job.run.id) if job.run.target else None,
                timeout_seconds=options.timeout,
                batch_records=batch_records(options.rate, BATCH_RECORDS),
            ) as reader:
                if attend := getattr(sink, "attend", None):
                    attend(reader.consumer)
                # Whoever knows the run's id can take it up, whatever happens from here on.
                sink.commit(state)
                _print_plan(options, job, choose)
                with Progress(state.left, state.read) as progress:
                    transfer(reader, sink, state, choose=choose, pace=Pace(options.rate), progress=progress, stop=stop)
                _tell(job, state, reader, sink, progress.seconds)
        except BrokenPipeError:
            console.discard_output()
            console.say(f"whoever read the output went away, after {state.written:,} records at least")
            return console.EXIT_FAILED
        except TopicChangedError:
            raise
        except BridgeError as error:
            raise type(error)(f"{error}\n  {_how_to_go_on(job.run, state)}") from error
        finally:
            sink.close()
        if stop.signal is not None and state.left:
            console.say(f"stopped by {signal.Signals(stop.signal).name}; {_how_to_go_on(job.run, state)}")
            return console.exit_code_of(stop.signal)
    return GONE if reader.gaps or (job.ranges is not None and job.ranges.gone) else 0


def _open(options: argparse.Namespace, job: _Job, asker: ClusterInspector) -> tuple[Sink, State]:
    run = job.run
    if run.target is not None:
        return open_target(asker, job.settings, job.state, options.timeout, taken_up=job.ranges is None)
    if run.file is None:
        return _Counting(), job.state
    if is_stream(run.file):
        return StreamSink(run.file, _lines(job)), job.state
    file = Path(run.file)
    return FileSink(file, _lines(job), job.checkpoint), job.state


class _Counting:
    """A sink that counts by partition, and by what the header says an event is."""

    def __init__(self) -> None:
        self.partitions: Counter[int] = Counter()
        self.types: Counter[str] = Counter()

    def write(self, messages: Sequence[Message]) -> None:
        """Count."""
        for message in messages:
            self.partitions[message.partition() or 0] += 1
            headers: Any = message.headers()
            kind = header(headers, CE_TYPE) or header(headers, QUARANTINE_REASON) or b"without a type"
            self.types[kind.decode(errors="replace")] += 1

    def commit(self, state: State, *, wait: bool = True) -> None:
        """There is nothing to keep."""

    def close(self) -> None:
        """Nothing is open."""

    def report(self) -> None:
        """Print what was counted."""
        for name, counts in (("partition", self.partitions), ("type", self.types)):
            for what, count in sorted(counts.items()):
                console.show(f"{name} {what}: {count:,}")


def _tell(job: _Job, state: State, reader: Reader, sink: Sink, seconds: float) -> None:
    """Say what became of it."""
    if isinstance(sink, _Counting):
        sink.report()
    where = "fit" if job.run.file is None and job.run.target is None else f"written to {_sink_name(job.run)}"
    console.say(f"{state.read:,} records read, {state.written:,} {where}, in {duration(seconds)}")
    if state.undecodable:
        console.say(
            f"{state.undecodable:,} values could not be decoded; they are in the output as value_base64, with value_error"
        )
    for gap in reader.gaps:
        console.say(
            f"partition {gap.partition}: {gap.end - gap.start:,} offsets from {gap.start:,} on expired before they were read"
        )


def _how_to_go_on(run: Run, state: State) -> str:
    if run.target is not None:
        return f"go on with: chatapp-bridge replay --resume {run.id} --execute"
    if run.file is None:
        return "nothing was written"
    if not is_stream(run.file):
        return f"go on with: chatapp-bridge replay --resume {run.id} --to-file {shlex.quote(run.file)} --execute"
    low = ",".join(f"{partition}:{position}" for partition, position in sorted(state.positions.items()))
    high = ",".join(f"{partition}:{end}" for partition, (_, end) in sorted(state.ranges.items()))
    return f"what was not yet read: --from {low} --to {high}"
