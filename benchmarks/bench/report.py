"""The generated parts of docs/performance.md, and its pictures."""

from collections.abc import Callable, Iterable
from pathlib import Path

from bench.contestants import CONTESTANTS
from bench.figures import Sample, Spread, ratio, spread, verdict
from bench.results import Results
from bench.svg import Bar, bars, number

DOCS = Path(__file__).parents[2] / "docs"
PAGE, PICTURES = DOCS / "performance.md", DOCS / "pictures"
NOTHING = "Not measured yet.\n"
OURS = ("bridge", "bridge-avro")
ANSWERED = 0.99


def write(results: Results) -> None:
    """Everything between markers, anew, and the pictures."""
    text = PAGE.read_text()
    for name, make in BLOCKS.items():
        begin, end = f"<!-- bench:{name} -->\n", f"<!-- /bench:{name} -->"
        before, found, rest = text.partition(begin)
        _, also, after = rest.partition(end)
        if not found or not also:
            raise ValueError(f"{PAGE} has no place for {name}")
        text = f"{before}{begin}{make(results) or NOTHING}{end}{after}"
    PAGE.write_text(text)
    for name, picture in pictures(results).items():
        (PICTURES / f"performance-{name}.svg").write_text(picture)


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _with_spread(of: Spread) -> str:
    return f"{number(of.median)} ({number(of.least)} to {number(of.greatest)})"


def _by(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.contestant, []).append(sample)
    order = list(CONTESTANTS)
    return dict(sorted(found.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order)))


def _note(results: Results, leg: str) -> str:
    return f"\n{results.measured[leg]}.\n" if leg in results.measured else ""


def _machine(results: Results) -> str:
    return f"    {results.machine}\n" if results.machine else ""


def _contestants(_: Results) -> str:
    return _table(["", "what it does"], [[each.name, each.does] for each in CONTESTANTS.values()]).replace(
        "---:", "---"
    )


def _closed(results: Results) -> str:
    samples, parts = results.legs().get("closed", []), []
    for size in sorted({sample.reports for sample in samples}):
        table = _compared([sample for sample in samples if sample.reports == size])
        parts.append(f"**{size} {'report' if size == 1 else 'reports'} a callback**\n\n{table}\n")
    return "".join(parts).removesuffix("\n") + _note(results, "closed")


def _compared(samples: list[Sample]) -> str:
    head = ["", "requests/s", "reports/s", "of the bridge's", "p50 ms", "p99 ms", "p99.9 ms", "CPU, us a report",
            "Kafka's CPU", "MiB", "delivered"]  # fmt: skip
    by = _by(samples)
    return _table(head, [[name, *_figures(name, of, by.get("bridge", []))] for name, of in by.items()])


def _figures(name: str, of: list[Sample], bridge: list[Sample]) -> list[str]:
    against = ratio(of, bridge, "reports_per_second") if len(of) == len(bridge) else None
    known = CONTESTANTS.get(name)
    return [
        number(spread(of, "requests_per_second").median),
        _with_spread(spread(of, "reports_per_second")),
        "" if against is None else f"{against.median:.2f} ({against.least:.2f} to {against.greatest:.2f})",
        *(number(spread(of, each).median) for each in ("p50_ms", "p99_ms", "p999_ms")),
        _with_spread(spread(of, "cpu_us")),
        number(spread(of, "kafka_cpu_us").median),
        number(spread(of, "rss_mib").median),
        verdict(of, exact=known is None or known.exact),
    ]


def _open(results: Results) -> str:
    samples = results.legs().get("open", [])
    head = ["", "p50 ms", "p99 ms", "p99.9 ms", "CPU, us a report", "answered of those due", "delivered"]
    rows = []
    for name, of in _by(samples).items():
        times = [_with_spread(spread(of, each)) for each in ("p50_ms", "p99_ms", "p999_ms", "cpu_us")]
        rows.append([name, *times, f"{_answered(of):.1%}", verdict(of, exact=name in OURS)])
    return _table(head, rows) + _note(results, "open") if rows else ""


def _answered(of: list[Sample]) -> float:
    """The share of callbacks that were due and answered 200."""
    answered = sum(each.acknowledged // each.reports for each in of)
    return answered / max(1, answered + sum(sum(each.other.values()) + each.unsent for each in of))


def _produce(results: Results) -> str:
    head = ["compression", "records/s", "CPU, us a record", "bytes a record"]
    rows = [
        [each.compression, _with_spread(each.records_per_second), _with_spread(each.cpu_us), f"{each.bytes_each:,}"]
        for each in results.produced
    ]
    return _table(head, rows) + _note(results, "produce") if rows else ""


def _simple(leg: str) -> Callable[[Results], str]:
    def block(results: Results) -> str:
        head = ["", "reports/s", "p50 ms", "p99 ms", "CPU, us a report", "MiB", "delivered"]
        rows = []
        for name, of in _by(results.legs().get(leg, [])).items():
            times = [number(spread(of, each).median) for each in ("p50_ms", "p99_ms")]
            cpu, memory = _with_spread(spread(of, "cpu_us")), number(spread(of, "rss_mib").median)
            rows.append(
                [name, _with_spread(spread(of, "reports_per_second")), *times, cpu, memory, verdict(of, exact=True)]
            )
        return _table(head, rows) + _note(results, leg) if rows else ""

    return block


def _soak(results: Results) -> str:
    samples = results.legs().get("soak", [])
    if not samples:
        return ""
    total, rows = 0, []
    for index, sample in enumerate(samples):
        total += sample.acknowledged
        if index % max(1, len(samples) // 8) == 0 or index == len(samples) - 1:
            rows.append([f"{total / 1e6:.1f} million", number(sample.rss_mib), number(sample.reports_per_second)])
    return _table(["after reports", "MiB", "reports/s"], rows) + _note(results, "soak")


def _start(results: Results) -> str:
    if results.start_seconds is None:
        return ""
    return f"{_with_spread(results.start_seconds)} s.\n" + _note(results, "start")


BLOCKS: dict[str, Callable[[Results], str]] = {
    "machine": _machine,
    "contestants": _contestants,
    "closed": _closed,
    "open": _open,
    "produce": _produce,
    "outage": _simple("outage"),
    "scale": _simple("scale"),
    "soak": _soak,
    "start": _start,
}


def pictures(results: Results) -> dict[str, str]:
    """By name; only of what was measured."""
    legs, found = results.legs(), {}
    closed = [sample for sample in legs.get("closed", []) if sample.contestant != "empty"]
    if closed:
        of = "closed loop, 32 connections; each group has its own scale; the line is the spread over rounds"
        for name, attribute, title in (
            ("throughput", "reports_per_second", "Reports a second: more is better"),
            ("cpu", "cpu_us", "CPU time of the service, microseconds a report: less is better"),
        ):
            sizes = sorted({sample.reports for sample in closed})
            groups = [(f"{n} a callback", _bars([s for s in closed if s.reports == n], attribute)) for n in sizes]
            found[name] = bars(title, of, groups)
    if "open" in legs:
        title = "p99 of the answer, milliseconds: less is better"
        # Who answers little answers quickly.
        answering = [each for each in _by(legs["open"]).values() if _answered(each) >= ANSWERED]
        groups = [("", _bars([sample for of in answering for sample in of], "p99_ms"))]
        found["latency"] = bars(
            title, "300 callbacks/s of 10 reports on three brokers, counted from when each was due", groups
        )
    return found


def _bars(samples: list[Sample], attribute: str) -> list[Bar]:
    found = []
    for name, of in _by(samples).items():
        values = spread(of, attribute)
        found.append(Bar(name, values.median, values.least, values.greatest, ours=name in OURS))
    return found
