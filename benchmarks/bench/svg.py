"""Bars as SVG, legible on light and dark pages: transparent, and colours that follow the reader's."""

from html import escape
from typing import NamedTuple

WIDTH, LEFT, RIGHT, ROW, TOP, GAP = 760, 190, 150, 22, 46, 14
STYLE = """text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-weight:600;font-size:15px}
.s,.v{fill:#57606a}.v{font-size:12px}
.b{fill:#8c959f}.o{fill:#0969da}.w{stroke:#24292f;stroke-width:1.5}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s,.v{fill:#9198a1}.b{fill:#656c76}.o{fill:#4493f8}.w{stroke:#e6edf3}}"""


class Bar(NamedTuple):
    """One bar: its value, and the least and greatest of its rounds as a whisker."""

    name: str
    value: float
    least: float
    greatest: float
    ours: bool = False


def bars(title: str, unit: str, groups: list[tuple[str, list[Bar]]]) -> str:
    """A picture of horizontal bars, group by group; each group has a scale of its own."""
    parts, y = (
        [f'<text class="t" x="0" y="16">{escape(title)}</text>', f'<text class="s" x="0" y="34">{escape(unit)}</text>'],
        TOP,
    )
    for name, of in groups:
        if name:
            parts.append(f'<text class="s" x="0" y="{y + 14}">{escape(name)}</text>')
            y += ROW
        most = max((bar.greatest for bar in of), default=1.0) or 1.0
        for bar in of:
            parts.append(_bar(bar, y, (WIDTH - LEFT - RIGHT) / most))
            y += ROW
        y += GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", *parts, "</svg>\n"])


def _bar(bar: Bar, y: int, scale: float) -> str:
    middle, end = y + 9, LEFT + bar.greatest * scale
    kind = "o" if bar.ours else "b"
    return (
        f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(bar.name)}</text>'
        f'<rect class="{kind}" x="{LEFT}" y="{y + 2}" width="{max(1, bar.value * scale):.1f}" height="15" rx="2"/>'
        f'<line class="w" x1="{LEFT + bar.least * scale:.1f}" x2="{end:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<text class="v" x="{end + 6:.1f}" y="{y + 14}">{number(bar.value)}</text>'
    )


def number(value: float) -> str:
    """Three figures, or all of a large one."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
