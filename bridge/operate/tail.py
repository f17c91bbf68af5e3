"""``chatapp-bridge tail``: events as they come, a line each.

Nothing is joined and nothing committed, so that nobody is disturbed and nothing stays behind. Numbers and ids of people are
masked unless asked for.
"""

import argparse
import math
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final, Protocol

from confluent_kafka import KafkaException, Message, TopicPartition
from rich.console import Console
from rich.text import Text

from bridge import config
from bridge.consume import Decoder, Undecodable
from bridge.headers import QUARANTINE_PATH, QUARANTINE_REASON, REDRIVE, REPLAY
from bridge.operate import console
from bridge.operate.console import time_text
from bridge.operate.masking import masked, masked_line
from bridge.operate.ndjson import EventOf, Lines
from bridge.operate.reading.events import decoder_of
from bridge.operate.reading.inspector import ClusterInspector
from bridge.operate.reading.reader import Reader
from bridge.operate.reading.select import LATEST, Predicate, filters_of, header, parse_bound, topic_named
from bridge.operate.replay.plan import find_ranges

# An offset that no partition reaches.
_FOREVER: Final = 1 << 62
# Between looks at the topic: are there new partitions, do brokers answer?
_LOOK_SECONDS: Final = 3.0
_ANSWER_SECONDS: Final = 2.0
_COLOURS: Final = {
    "SENT": "cyan",
    "DELIVERED": "green",
    "READ": "bold green",
    "FAILED": "bold red",
    "DELETED": "magenta",
    "SUBSCRIBED": "green",
    "UNSUBSCRIBED": "magenta",
    "UNKNOWN": "yellow",
}
_WIDTH: Final = max(map(len, _COLOURS))


def main(options: argparse.Namespace) -> int:
    """Follow until interrupted. 0: interrupted, or whoever reads has had enough.

    Raises:
        ReplayError: the topic is not there, or may not be read.
    """
    settings = config.load(options.config, assignments=options.set).settings
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        _follow(settings, options)
    except KeyboardInterrupt:
        _ignore()
    except BrokenPipeError:
        console.discard_output()
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _ignore() -> None:
    """A second Ctrl-C changes nothing any more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _follow(settings: config.Settings, options: argparse.Namespace) -> None:
    topic = topic_named(options.topic, settings.topics)
    decoder = decoder_of(settings, topic)
    filters = filters_of(options)
    look = EventOf(decoder) if decoder else None
    wanted = filters.predicate(look) if filters else None
    printer: Printer
    if options.format == "json":
        printer = JsonPrinter(topic, decoder, unmask=options.unmask)
    else:
        printer = TextPrinter(decoder, unmask=options.unmask)
    with ClusterInspector(settings.kafka) as inspector:
        ranges = find_ranges(inspector, topic, options.since, parse_bound(LATEST))
    for note in ranges.notes:
        console.say(note)
    starts = {partition: start for partition, (start, _) in ranges.chosen.items()}
    with Follower(settings.kafka, topic, starts, grows=options.since.partitions is None) as follower:
        said = False
        for messages in follower:
            chosen = [each for each in messages if wanted is None or _fits(wanted, each)]
            if chosen:
                printer.print(chosen)
            if look is not None and look.undecodable and not said:
                console.say(look.notice())
                said = True


def _fits(wanted: Predicate, message: Message) -> bool:
    headers: Any = message.headers()
    return wanted(message.key(), headers, message.value())


class Follower(Reader):
    """A reader that goes on for ever, through outages, and takes up partitions that are added.

    Args:
        kafka: ``[kafka]``.
        topic: one that is there.
        starts: the first offset of each partition.
        grows: whether partitions that are added belong to it.
    """

    def __init__(self, kafka: config.Kafka, topic: str, starts: dict[int, int], *, grows: bool) -> None:
        ranges = {partition: (start, _FOREVER) for partition, start in starts.items()}
        super().__init__(kafka, topic, ranges, timeout_seconds=math.inf)
        self._grows = grows
        self._away_since: float | None = None

    def __iter__(self) -> Iterator[list[Message]]:
        """Batches, some of them empty.

        Raises:
            ReplayError: the topic may not be read, or went away.
        """
        look_at = time.monotonic() + _LOOK_SECONDS
        reported = 0
        for messages in super().__iter__():
            yield messages
            for gap in self.gaps[reported:]:
                reported += 1
                console.say(
                    f"partition {gap.partition}: offsets {gap.start:,} to {gap.end:,} expired before they were read"
                )
            if time.monotonic() >= look_at:
                self._look()
                look_at = time.monotonic() + _LOOK_SECONDS

    def _look(self) -> None:
        """Do brokers answer, and what is there now?"""
        try:
            found = self.consumer.list_topics(self._topic, timeout=_ANSWER_SECONDS).topics[self._topic]
        except KafkaException:
            if self._away_since is None:
                self._away_since = time.monotonic()
                console.say("no broker answers; waiting until one does (Ctrl-C ends)")
            return
        if self._away_since is not None:
            console.say(f"brokers answer again, after {time.monotonic() - self._away_since:.0f} s")
            self._away_since = None
        if self._grows and found.error is None:
            for partition in sorted(set(found.partitions) - set(self.positions)):
                self._take_up(partition)

    def _take_up(self, partition: int) -> None:
        """All of a new partition."""
        self.positions[partition] = 0
        self._ends[partition] = _FOREVER
        self.consumer.incremental_assign([TopicPartition(self._topic, partition, 0)])
        console.say(f"partition {partition} is new, and followed from its beginning")


class Printer(Protocol):
    """Writes messages for whoever reads."""

    def print(self, messages: list[Message]) -> None:
        """Write them, and flush."""


class JsonPrinter:
    """A JSON object a line.

    Args:
        topic: which they are of.
        decoder: of events; None for the quarantine.
        unmask: leave them as they are.
    """

    def __init__(self, topic: str, decoder: Decoder | None, *, unmask: bool) -> None:
        self._lines = Lines(topic, decoder)
        self._unmask = unmask

    def print(self, messages: list[Message]) -> None:
        """Write them, and flush."""
        lines = self._lines.encode(messages)
        if not self._unmask:
            lines = b"".join(masked_line(line) + b"\n" for line in lines.splitlines())
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()


class TextPrinter:
    """A line for people each: when, what, of whom, where it stands.

    Args:
        decoder: of events; None for the quarantine.
        unmask: leave them as they are.
    """

    def __init__(self, decoder: Decoder | None, *, unmask: bool) -> None:
        self._decoder = decoder
        self._unmask = unmask
        self._console = Console(highlight=False, soft_wrap=True)

    def print(self, messages: list[Message]) -> None:
        """Write them, and flush."""
        with self._console.capture() as capture:
            self._console.print(Text("\n").join(map(self._line, messages)))
        # Not by the console: it would end the process itself where the pipe is closed.
        sys.stdout.write(capture.get())
        sys.stdout.flush()

    def _line(self, message: Message) -> Text:
        headers: Any = message.headers()
        when = Text(f"{time_text(max(0, message.timestamp()[1])):<24}  ", "dim")
        marks = [name for name in (REPLAY, REDRIVE) if header(headers, name) is not None]
        place = Text("  ".join(["", *marks, f"[{message.partition()}]@{message.offset()}"]), "dim")
        reason = header(headers, QUARANTINE_REASON)
        if reason is None and self._decoder is not None:
            what = self._event(message, self._decoder)
        else:
            what = self._quarantined(message, reason or b"?")
        return Text.assemble(when, what, place)

    def _event(self, message: Message, decoder: Decoder) -> Text:
        try:
            event = decoder.decode(message.value() or b"")
        except Undecodable as error:
            return Text(f"{'?':<{_WIDTH}}  {error}", "yellow")
        status = str(event.status)
        words = [f"{self._person(event.sender)} → {self._person(event.recipient or event.user_id)}"]
        words.append(event.message_id)
        words += [event.provider_status] if status == "UNKNOWN" else []
        words += [f"template {event.template_name or event.template_code}"] if event.template_code else []
        words += [f"error {event.error_code}, {event.error_category}"] if event.error_category != "NONE" else []
        return Text.assemble((f"{status:<{_WIDTH}}", _COLOURS[status]), Text("  " + _plain("  ".join(words))))

    def _quarantined(self, message: Message, reason: bytes) -> Text:
        headers: Any = message.headers()
        path = (header(headers, QUARANTINE_PATH) or b"").decode(errors="replace")
        key = message.key()
        words = [path, "" if key is None else key.decode(errors="replace"), f"{len(message.value() or b''):,} bytes"]
        said = _plain("  ".join(filter(None, words)))
        return Text.assemble((f"{_plain(reason.decode(errors='replace')):<14}", "yellow"), f"  {said}")

    def _person(self, number: str | None) -> str:
        if number is None:
            return "-"
        return number if self._unmask else masked(number)


def _plain(text: str) -> str:
    """Nothing that a terminal would obey: texts come from outside."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
