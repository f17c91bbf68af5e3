"""``chatapp-bridge status``: what the page of the admin port says, in a terminal."""

import argparse
import http.client
import json
import urllib.parse
from datetime import datetime
from typing import Any

from bridge import config
from bridge.errors import ConfigurationError
from bridge.network import client_context
from bridge.operate import console
from bridge.operate.console import mebibytes, short_duration

EXIT_SAFE, EXIT_NOT_SAFE, EXIT_UNKNOWN = 0, 1, 2
_ANSWER_SECONDS = 5.0
_ANYWHERE = {"": "localhost", "0.0.0.0": "localhost", "::": "localhost"}  # noqa: S104 - where to ask one that listens there
_STYLES = {"safe": "bold green", "on_disk": "bold yellow", "refusing": "bold red"}
_SHOWN_FAULTS = 5


class _NoAnswerError(Exception):
    """The bridge can't be asked; says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command, beside the configuration's."""
    parser.add_argument(
        "--url", metavar="URL", help="the admin port's address (default: server.admin_port, on this machine)"
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="a file whose first token is sent (default: server.admin_token_file; with --url, none)",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="for people, or for programs (default: text)"
    )


def main(options: argparse.Namespace) -> int:
    """Ask, and print. 0: safe, on Kafka or on disk; 1: not safe; 2: it can't be asked, or wrong usage or configuration."""
    server = None if options.url else config.load(options.config, assignments=options.set).settings.server
    url = options.url if server is None else _default_url(server)
    try:
        status = _ask(url, _token(options.token_file, server))
    except _NoAnswerError as error:
        console.say(f"no bridge answers at {url}: {error}")
        return EXIT_UNKNOWN
    if options.format == "json":
        console.show(json.dumps(status, indent=2))
    else:
        _print(status)
    return EXIT_SAFE if status["safe"] else EXIT_NOT_SAFE


def _default_url(server: config.Server) -> str:
    host = _ANYWHERE.get(server.admin_host, server.admin_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{server.admin_port}"


def _token(file: str | None, server: config.Server | None) -> str | None:
    """What to send; the configured one only to the address that is configured too."""
    if file is not None:
        found = config.tokens(file, "--token-file")
    else:
        found = config.tokens(server.admin_token_file, "server.admin_token_file") if server else []
    return found[0] if found else None


def _ask(url: str, token: str | None) -> dict[str, Any]:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        parts = urllib.parse.urlsplit("")
    if parts.scheme not in {"http", "https"} or parts.hostname is None:
        raise ConfigurationError(f"--url: {url} is not an address; give one such as http://localhost:8081")
    try:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_ANSWER_SECONDS)
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=_ANSWER_SECONDS, context=client_context("")
            )
        headers = {"connection": "close"} | ({} if token is None else {"authorization": f"Bearer {token}"})
        connection.request("GET", f"{parts.path.rstrip('/')}/status.json", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _NoAnswerError(str(error) or type(error).__name__) from error
    if answer.status == http.HTTPStatus.UNAUTHORIZED:
        raise _NoAnswerError("it asks for a token (401); name a file with a valid one: --token-file")
    if answer.status != http.HTTPStatus.OK:
        raise _NoAnswerError(f"it answers {answer.status} to /status.json; is that the admin port?")
    try:
        status: dict[str, Any] = json.loads(body)
        status["safe"]
    except (ValueError, KeyError, TypeError) as error:
        raise _NoAnswerError("what it answers is no status; is that the admin port?") from error
    return status


# --- for people -------------------------------------------------------------------------------------------------------


def _print(status: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415 - the other commands start quickly
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    terminal = Console(highlight=False)
    since = datetime.fromtimestamp(status["since_ms"] / 1000).astimezone().isoformat(" ", "seconds")
    lasting = short_duration((status["now_ms"] - status["since_ms"]) / 1000)
    terminal.print(
        Text(status["word"], style=_STYLES.get(status["verdict"], "bold"))
        + Text(f"  since {since}, {lasting}", "default")
    )
    terminal.print(Text(status["why"]))
    for notice in status["notices"]:
        terminal.print(Text(f"! {notice['text']}", "yellow") + Text(f" (docs/runbook.md#{notice['entry'].lower()})"))
    terminal.print()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows(status):
        table.add_row(name, Text(value))
    terminal.print(table)
    if status["quarantined"]:
        terminal.print("\nlast quarantined")
        faults = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        for fault in status["quarantined"][:_SHOWN_FAULTS]:
            at = datetime.fromtimestamp(fault["at_ms"] / 1000).astimezone().strftime("%H:%M:%S")
            faults.add_row(at, fault["reason"], Text(fault["path"]), fault["callback"])
        terminal.print(faults)


def rows(status: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures, each with its unit."""
    return [
        ("ack latency", _ack(status["ack"])),
        ("callbacks", _callbacks(status)),
        ("reports", ", ".join(f"{r['outcome']} {r['per_second']:,.1f}/s ({r['total']:,})" for r in status["reports"])),
        ("waiting", _waiting(status["waiting"])),
        ("Kafka", _kafka(status["kafka"])),
        ("lanes", _lanes(status["lanes"])),
        ("spool", _spool(status["spool"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in status["versions"].items())),
        ("host", f"{status['host']}, up {_ago(status, status['started_ms'])}"),
    ]


def _ack(ack: dict[str, Any]) -> str:
    return f"{short_duration(ack['p99_seconds'])} p99, {short_duration(ack['p50_seconds'])} median, of {ack['limit_seconds']:g} s"


def _callbacks(status: dict[str, Any]) -> str:
    callbacks = status["callbacks"]
    last = "none yet" if callbacks["last_ms"] is None else f"{_ago(status, callbacks['last_ms'])} ago"
    rates = f"{callbacks['taken_per_second']:,.1f}/s taken, {callbacks['refused_per_second']:,.1f}/s refused"
    return f"{rates}; last {last}"


def _waiting(waiting: dict[str, Any]) -> str:
    if not waiting["reports"]:
        return "nothing"
    left = (
        "not shrinking"
        if waiting["backlog_eta_seconds"] is None
        else f"empty in {short_duration(waiting['backlog_eta_seconds'])}"
    )
    oldest = short_duration(waiting["oldest_seconds"])
    return f"{waiting['reports']:,} reports, oldest {oldest}, {waiting['drain_per_second']:,.0f}/s leave, {left}"


def _kafka(kafka: dict[str, Any]) -> str:
    up = "answers" if kafka["up"] else "does not answer"
    begun = f"{kafka['connections_opened']} connections opened"
    figures = f"batches {short_duration(kafka['p99_seconds'])} p99, {begun}"
    repeats = (
        "; no producer id: a batch that is sent again may be in the log twice" if kafka["idempotent"] is False else ""
    )
    return f"{up}, {', '.join(kafka['servers'])}; {figures}{repeats}"


def _lanes(topics: list[dict[str, Any]]) -> str:
    lanes = [lane for topic in topics for lane in topic["lanes"]]
    degraded = sum(lane["degraded"] for lane in lanes)
    return f"{len(lanes) - degraded} healthy, {degraded} degraded"


def _spool(spool: dict[str, Any] | None) -> str:
    if spool is None:
        return "switched off"
    state = "takes nothing" if not spool["writable"] else "in use" if spool["rows"] else "empty, ready"
    if spool["checked_share"] < 1:
        state += f", {spool['checked_share']:.0%} checked"
    used = f"{spool['rows']:,} rows, {mebibytes(spool['bytes'])} of {mebibytes(spool['limit_bytes'])}"
    return f"{state}; {used}, {mebibytes(spool['free_bytes'])} free on the disk; {spool['dead_letter_reports']:,} dead letters"


def _ago(status: dict[str, Any], at_ms: float) -> str:
    return short_duration(max(0.0, (status["now_ms"] - at_ms) / 1000))
