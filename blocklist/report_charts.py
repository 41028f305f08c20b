"""Charts of a report as SVG to stand in a page: shapes and words alone, no script, no colour of their own.

Colours come from the classes `came`, `went`, `alone`, `shared` and `bar` of the page, so that one drawing serves light,
dark and paper. Each has a title and a description for those who can't see it. (pygal was tried: its charts carry a
script and colours that no style sheet of the page can change.)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from markupsafe import Markup, escape

from blocklist.plain import safe
from blocklist.report import Count, Day, FeedRow

_WIDTH = 720
_HEIGHT = 200
_ROW = 24
_LABEL = 190
_VALUE = 150
# More bars than this are no longer bars: then one stands for a week.
_MOST_DAYS = 120


def by_day(days: Sequence[Day]) -> Markup:
    """What came, upwards, and went, downwards. Without what came with the first reading of a feed."""
    bars = _weekly(days) if len(days) > _MOST_DAYS else days
    ups = [day.came - day.begun for day in bars]
    top = max([*ups, *(day.went for day in bars), 1])
    left, middle, half = 60, _HEIGHT / 2, _HEIGHT / 2 - 22
    step = (_WIDTH - left) / max(len(bars), 1)
    shapes = [f'<line class="axis" x1="{left}" x2="{_WIDTH}" y1="{middle}" y2="{middle}"/>']
    for i, (day, up) in enumerate(zip(bars, ups, strict=True)):
        x, width = left + i * step + step * 0.1, step * 0.8
        for kind, n, sign in (("came", up, -1), ("went", day.went, 1)):
            height = half * n / top
            y = middle - height if sign < 0 else middle
            said = f"{day.day}: {n:,} {kind}"
            shapes.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
                f"<title>{escape(said)}</title></rect>"
            )
    for text, y in ((f"+{top:,}", middle - half), ("0", middle), (f"−{top:,}", middle + half)):
        shapes.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    if bars:
        shapes.append(f'<text x="{left}" y="{_HEIGHT - 2}">{escape(bars[0].day)}</text>')
        shapes.append(f'<text x="{_WIDTH}" y="{_HEIGHT - 2}" text-anchor="end">{escape(bars[-1].day)}</text>')
    unit = "week" if bars is not days else "day"
    title = f"Listings that came and went by {unit}"
    said = f"{sum(ups):,} came and {sum(d.went for d in bars):,} went; the most in one {unit} was {top:,}."
    return _svg("days", title, said, _HEIGHT, shapes)


def _weekly(days: Sequence[Day]) -> list[Day]:
    """Sums of weeks that begin on Monday, by that day or the first that is there."""
    sums: dict[tuple[int, int], Day] = {}
    for day in days:
        year, week, _ = date.fromisoformat(day.day).isocalendar()
        so_far = sums.get((year, week), Day(day.day))
        sums[year, week] = Day(so_far.day, so_far.came + day.came, so_far.went + day.went, so_far.begun + day.begun)
    return list(sums.values())


def by_category(categories: Sequence[Count]) -> Markup:
    """How many listings each category has now."""
    rows = [(c.name, [("bar", c.now)], f"{c.now:,}") for c in categories if c.now]
    return _bars("categories", "Listings now by category", rows)


def by_feed(feeds: Sequence[FeedRow]) -> Markup:
    """How many entries each feed has, those that no other feed lists apart."""
    rows = [
        (f.feed, [("alone", f.alone), ("shared", f.entries - f.alone)], f"{f.entries:,}, {f.alone:,} alone")
        for f in feeds
        if f.entries
    ]
    return _bars("feeds", "Entries by feed: listed by it alone, and by others too", rows)


def _bars(ident: str, title: str, rows: Sequence[tuple[str, Sequence[tuple[str, int]], str]]) -> Markup:
    top = max((sum(n for _, n in parts) for _, parts, _ in rows), default=1)
    room, shapes = _WIDTH - _LABEL - _VALUE, []
    for i, (name, parts, value) in enumerate(rows):
        y, x = i * _ROW, float(_LABEL)
        shapes.append(f'<text x="{_LABEL - 8}" y="{y + 16}" text-anchor="end">{escape(safe(_short(name)))}</text>')
        for kind, n in parts:
            width = room * n / top
            shapes.append(f'<rect class="{kind}" x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="{_ROW - 8}"/>')
            x += width
        shapes.append(f'<text x="{x + 6:.1f}" y="{y + 16}">{escape(value)}</text>')
    said = "; ".join(f"{safe(name)}: {value}" for name, _, value in rows) or "nothing"
    return _svg(ident, title, said, len(rows) * _ROW, shapes)


def _short(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"


def _svg(ident: str, title: str, said: str, height: int, shapes: Sequence[str]) -> Markup:
    """`shapes` are SVG of this module, with every text in them escaped."""
    head = (
        f'<svg viewBox="0 0 {_WIDTH} {max(height, 1)}" role="img" aria-labelledby="{ident}-title {ident}-said">'
        f'<title id="{ident}-title">{escape(title)}</title><desc id="{ident}-said">{escape(said)}</desc>'
    )
    return Markup(head + "".join(shapes) + "</svg>")  # noqa: S704


__all__ = ["by_category", "by_day", "by_feed"]
