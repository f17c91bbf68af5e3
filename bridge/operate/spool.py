"""``chatapp-bridge spool``: look at what waits on disk, take a copy of it, bring it to Kafka without the service.

``show``, ``export`` and ``verify`` only read: beside a running bridge, and without one. ``drain`` and ``requeue`` own the
directory, and are refused while a bridge does. Only ``export`` prints keys and values, which are personal data.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from bridge import config
from bridge.delivery.layout import LAYOUT_KEY, Layout, placed
from bridge.errors import SpoolBusy
from bridge.operate import console
from bridge.spool.failure import failure_of
from bridge.spool.reader import SpoolReader, open_read_only
from bridge.spool.rows import DeadLetter, LaneStats, SpoolRow
from bridge.spool.spool import Spool

if TYPE_CHECKING:
    from bridge.operate.ndjson import SpoolLines

_PAGE_BYTES: Final = 4 << 20
_PAGE_ROWS: Final = 4_096
_STOP_SECONDS: Final = 10.0
_SHOWN_IDS: Final = 12


def add_arguments(parser: argparse.ArgumentParser, configured: argparse.ArgumentParser) -> None:
    """The actions and their options; ``configured`` brings those of the configuration.

    Beside them ``main`` expects, as ``schema_ids``, what makes a delivery's of the settings.
    """
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, perform: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, parents=[configured], help=text, description=text)
        added.add_argument("--directory", type=Path, metavar="DIR", help="of the spool; spool.directory unless given")
        added.set_defaults(spool_action=perform)
        return added

    show = action("show", _show, "what waits and the dead letters, in numbers; may be asked beside a running bridge")
    show.add_argument("--json", action="store_true", help="one JSON object, for machines")
    export = action("export", _export, "every record as a line of JSON, keys and values included; nothing is removed")
    export.add_argument("--output", type=Path, metavar="FILE", help="a new file, readable by its owner; else stdout")
    export.add_argument("--dead-letters", action="store_true", help="also the dead letters, with their reasons")
    action("verify", _verify, "check every row against its checksum; exit 1 where one is damaged")
    text = "publish all of it to Kafka, in order; exit 1 unless the spool is empty then; no bridge may run on it"
    drain = action("drain", _drain, text)
    drain.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after that long; else never")
    text = "serve chatapp_bridge_spool_rows at server.admin_port, and go on for that long once the spool is empty; for alerts"
    drain.add_argument("--report-seconds", type=float, metavar="SECONDS", help=text)
    back = action("requeue", _requeue, "queue dead letters again, behind what waits; no bridge may run on it")
    back.add_argument("ids", type=int, nargs="*", metavar="ID", help="of dead letters, as `show` names them")
    back.add_argument("--all", action="store_true", help="all that are whole")


def main(options: argparse.Namespace) -> int:
    """Perform the action; the exit code.

    Raises:
        SpoolError: there is no spool, or it can't be used.
    """
    try:
        return int(options.spool_action(options))
    except sqlite3.Error as error:
        if failure_of(error, None) == "damaged":
            remedy = "A bridge, or `spool drain`, moves it aside and takes over its rows."
            console.say(f"the spool's file is damaged: {error}. {remedy}")
        else:
            console.say(f"the spool's file could not be read: {error}; try again")
        return console.EXIT_FAILED
    except BrokenPipeError:
        console.discard_output()
        return console.EXIT_FAILED
    except OSError as error:
        console.say(f"{error.filename or 'the spool'}: {error.strerror}")
        return console.EXIT_FAILED


def _settings(options: argparse.Namespace) -> config.Settings:
    chosen = [] if options.directory is None else [f"spool.directory={options.directory}"]
    return config.load(options.config, assignments=[*options.set, *chosen, "spool.enabled=true"]).settings


def _directory(options: argparse.Namespace) -> Path:
    return options.directory or Path(_settings(options).spool.directory)


# --- what is in it ----------------------------------------------------------------------------------------------------


class _Damaged(NamedTuple):
    lane: int
    seq: int
    reason: str


def _rows(reader: SpoolReader, lane: int, stats: LaneStats) -> Iterator[SpoolRow | _Damaged]:
    """A lane's rows in order, page by page; of the damaged ones what is known."""
    limit = max(1, min(_PAGE_ROWS, _PAGE_BYTES * stats.rows // max(1, stats.bytes)))
    after = stats.first_seq - 1
    while True:
        rows, bad = reader.read(lane, after, max_bytes=_PAGE_BYTES, limit=limit)
        if not rows and not bad:
            return
        found: list[SpoolRow | _Damaged] = [*rows, *(_Damaged(lane, row.seq, reason) for row, reason in bad)]
        found.sort(key=lambda row: row.seq)
        yield from found
        after = found[-1].seq


def _dead_letters(reader: SpoolReader) -> Iterator[DeadLetter]:
    after = 0
    while rows := reader.dead_letters(after, max_bytes=_PAGE_BYTES):
        yield from rows
        after = rows[-1].id


def _damaged_files(directory: Path) -> list[dict[str, Any]]:
    return [
        {"path": str(path), "bytes": sum(file.stat().st_size for file in path.iterdir())}
        for path in sorted((directory / "damaged").glob("*"))
    ]


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")


def _say_if_changed(*, changed: bool) -> None:
    if changed:
        console.say(
            "a bridge was writing to the spool meanwhile: rows that came or went since the start may be missing"
        )


# --- show -------------------------------------------------------------------------------------------------------------


def _show(options: argparse.Namespace) -> int:
    directory = _directory(options)
    with open_read_only(directory) as reader:
        found = _figures(directory, reader)
        found["changed_meanwhile"] = reader.changed
        # Asked last, of one moment: a row may have moved between two of the figures.
        found["empty"] = reader.empty and not found["damaged_files"]
    if options.json:
        console.show(json.dumps(found))
    else:
        _print_figures(found)
    return 0


def _figures(directory: Path, reader: SpoolReader) -> dict[str, Any]:
    ledger, layout = reader.stats(), Layout.parse(reader.meta().get(LAYOUT_KEY))
    lanes: list[dict[str, Any]] = []
    topics: dict[str, dict[str, Any]] = {}
    for number, stats in sorted(ledger.lanes.items()):
        topic, index = layout.name_of(number)
        figures = {"rows": stats.rows, "reports": stats.reports, "bytes": stats.bytes}
        seqs = {"first_seq": stats.first_seq, "last_seq": stats.last_seq, "oldest_at": _time(stats.oldest_at_ms)}
        lanes.append({"topic": topic, "lane": index, "number": number, **figures, **seqs})
        total = topics.setdefault(topic, {"topic": topic, "lanes": 0, **dict.fromkeys(figures, 0), "oldest_at": None})
        total["lanes"] += 1
        for name, value in figures.items():
            total[name] += value
        total["oldest_at"] = min(filter(None, (total["oldest_at"], seqs["oldest_at"])), default=None)
    by_reason: dict[str, dict[str, Any]] = {}
    for row in _dead_letters(reader):
        group = by_reason.setdefault(row.reason, {"reason": row.reason, "rows": 0, "reports": 0, "bytes": 0, "ids": []})
        group["rows"] += 1
        group["reports"] += row.n
        group["bytes"] += len(row.body)
        group["ids"].append(row.id)
    return {
        "directory": str(directory),
        "rows": ledger.rows,
        "reports": ledger.reports,
        "bytes": ledger.bytes,
        "oldest_at": _time(ledger.oldest_at_ms()),
        "topics": list(topics.values()),
        "lanes": lanes,
        "dead_letters": list(by_reason.values()),
        "damaged_files": _damaged_files(directory),
    }


def _print_figures(found: dict[str, Any]) -> None:
    console.show(
        f"{found['directory']}: {found['reports']:,} reports wait in {found['rows']:,} rows, {found['bytes']:,} bytes"
    )
    if found["oldest_at"]:
        console.show(f"oldest: {found['oldest_at']}")
    head = ["reports", "rows", "bytes"]
    body = [
        [each["topic"], str(each.get("lane", "all")), *_counts(each), each["oldest_at"] or "?"]
        for total in found["topics"]
        for each in (total, *(lane for lane in found["lanes"] if lane["topic"] == total["topic"]))
    ]
    _print_table(["topic", "lane", *head, "oldest"], body)
    reasons = [[group["reason"], *_counts(group), _shortened(group["ids"])] for group in found["dead_letters"]]
    _print_table(["dead letters for", *head, "ids"], reasons)
    _print_table(["damaged file", "bytes"], [[each["path"], f"{each['bytes']:,}"] for each in found["damaged_files"]])
    _say_if_changed(changed=found["changed_meanwhile"])
    if found["empty"]:
        console.show("The spool is empty: no waiting rows, no dead letters, no damaged files.")


def _counts(figures: dict[str, Any]) -> list[str]:
    return [f"{figures[name]:,}" for name in ("reports", "rows", "bytes")]


def _print_table(head: list[str], body: list[list[str]]) -> None:
    if not body:
        return
    console.show(
        "", *console.table([head, *body], indent="", to_the_left=lambda _, text: not text[:1].isdigit() or "-" in text)
    )


def _shortened(ids: list[int]) -> str:
    text = " ".join(map(str, ids[:_SHOWN_IDS]))
    return text if len(ids) <= _SHOWN_IDS else f"{text} and {len(ids) - _SHOWN_IDS} more (--json names all)"


# --- export -----------------------------------------------------------------------------------------------------------


def _export(options: argparse.Namespace) -> int:
    from bridge.operate import ndjson  # noqa: PLC0415 - only this needs Kafka's client

    console.say("what is exported holds personal data: telephone numbers and texts of messages")
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(open_read_only(_directory(options)))
        out: BinaryIO = sys.stdout.buffer
        if options.output is not None:
            try:
                out = stack.enter_context(os.fdopen(ndjson.new_file(options.output), "wb"))
            except OSError as error:
                console.say(ndjson.refusal(options.output, error))
                return console.EXIT_USAGE
        exported = _Exported(out, ndjson.SpoolLines(), Layout.parse(reader.meta().get(LAYOUT_KEY)))
        damaged = _export_queue(reader, exported)
        if options.dead_letters:
            for row in _dead_letters(reader):
                exported.write_dead_letter(row)
        out.flush()
        _say_if_changed(changed=reader.changed)
    console.say(f"{exported.records:,} records exported")
    if notice := ndjson.undecodable_notice(exported.lines.undecodable):
        console.say(notice)
    if damaged:
        console.say(f"{damaged:,} rows are damaged and were left out: see `spool verify`")
    return 1 if damaged else 0


class _Exported:
    """Writes lines and counts records; lanes are named by their topics, as ``show`` names them."""

    def __init__(self, out: BinaryIO, lines: "SpoolLines", layout: Layout) -> None:
        self._out = out
        self.lines = lines
        self._layout = layout
        self.records = 0

    def write(self, row: SpoolRow) -> None:
        """A line for each record."""
        self._out.write(self.lines.encode(row.records, self._lane(row.lane), row.seq))
        self.records += len(row.records)

    def write_dead_letter(self, row: DeadLetter) -> None:
        """A line for each record; of a damaged row, one with its bytes."""
        mark: dict[str, int | str] = {"id": row.id, "reason": row.reason, "at": _time(row.at_ms) or ""}
        if not row.whole:
            self._out.write(self.lines.encode_damaged(row.body, self._lane(row.lane), row.seq, mark))
            return
        records = row.records()
        self._out.write(self.lines.encode(records, self._lane(row.lane), row.seq, mark))
        self.records += len(records)

    def _lane(self, number: int) -> int:
        return self._layout.name_of(number)[1]


def _export_queue(reader: SpoolReader, out: _Exported) -> int:
    """Every whole row that waits; how many are damaged."""
    damaged = 0
    for lane, stats in sorted(reader.stats().lanes.items()):
        for row in _rows(reader, lane, stats):
            if isinstance(row, _Damaged):
                damaged += 1
                continue
            out.write(row)
    return damaged


# --- verify -----------------------------------------------------------------------------------------------------------


def _verify(options: argparse.Namespace) -> int:
    directory = _directory(options)
    whole = wrong = 0
    with open_read_only(directory) as reader:
        layout = Layout.parse(reader.meta().get(LAYOUT_KEY))
        reader.check_index()
        for lane, stats in sorted(reader.stats().lanes.items()):
            for row in _rows(reader, lane, stats):
                if isinstance(row, _Damaged):
                    topic, index = layout.name_of(lane)
                    console.show(f"damaged: topic {topic}, lane {index}, seq {row.seq}: {row.reason.partition(':')[0]}")
                    wrong += 1
                else:
                    whole += 1
        for dead_letter in _dead_letters(reader):
            if dead_letter.whole:
                whole += 1
            else:
                console.show(f"damaged: dead letter {dead_letter.id} of {_time(dead_letter.at_ms)}")
                wrong += 1
        _say_if_changed(changed=reader.changed)
    files = _damaged_files(directory)
    console.show(
        f"{whole:,} rows are whole, {wrong:,} are damaged; {len(files):,} damaged files were moved aside before"
    )
    return 1 if wrong else 0


# --- drain ------------------------------------------------------------------------------------------------------------


def _drain(options: argparse.Namespace) -> int:
    from bridge.observe import logs  # noqa: PLC0415 - only this needs Kafka's client
    from bridge.operate.drain import drain  # noqa: PLC0415 - the same

    settings = _settings(options)
    logs.configure(settings.log)
    open_read_only(Path(settings.spool.directory)).close()  # makes none where there is none
    return _owning(drain(settings, options.schema_ids, options.timeout, options.report_seconds))


def _owning(work: Coroutine[Any, Any, int]) -> int:
    try:
        return asyncio.run(work)
    except SpoolBusy as error:
        raise SpoolBusy(f"{error}: a bridge runs on it; stop that first") from error


# --- requeue --------------------------------------------------------------------------------------------------------


def _requeue(options: argparse.Namespace) -> int:
    if bool(options.ids) == options.all:
        console.say("requeue wants ids, or --all")
        return 2
    settings = _settings(options)
    open_read_only(Path(settings.spool.directory)).close()
    return _owning(_requeued(settings.spool, None if options.all else options.ids))


async def _requeued(settings: config.Spool, ids: list[int] | None) -> int:
    spool = await Spool.open(Path(settings.directory), max_bytes=settings.max_bytes, min_free_bytes=0)
    try:
        await spool.wait_until_checked()
        back, failed, found = 0, 0, set()
        after = 0
        while rows := await spool.dead_letters(after, max_bytes=_PAGE_BYTES):
            for row in rows:
                found.add(row.id)
                if ids is None or row.id in ids:
                    given = await _queue_again(spool, row)
                    back, failed = back + given, failed + (not given)
            after = rows[-1].id
        for missing in sorted(set(ids or ()) - found):
            console.say(f"row {missing}: there is no such dead letter")
            failed += 1
        console.show(f"{back:,} rows wait again, behind what waited; `serve` or `spool drain` publishes them")
        return 1 if failed else 0
    finally:
        await spool.close(_STOP_SECONDS)


async def _queue_again(spool: Spool, row: DeadLetter) -> bool:
    """Put a row at the end of its key's lane; False where it is damaged."""
    records = row.records() if row.whole else []
    if not records:
        console.say(
            f"row {row.id}: damaged, so it stays where it is; `spool export --dead-letters` shows what is left of it"
        )
        return False
    topic = records[0].topic
    layout = Layout.parse(spool.get_meta(LAYOUT_KEY))
    if not layout.lanes_of(topic):
        layout.topics.append((topic, 1))
        await spool.set_meta(LAYOUT_KEY, layout.text)
    lane = layout.number_of(topic, placed(records[0], layout.lanes_of(topic)))
    waiting = spool.stats.lanes.get(lane)
    await spool.requeue(row.id, lane, max(time.time_ns(), waiting.last_seq + 1 if waiting else 0))
    return True
