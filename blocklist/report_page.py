"""A report as one HTML page that needs nothing else: no script, no request, fit for a screen and for paper."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from blocklist import clock, report_charts
from blocklist.plain import cell
from blocklist.report import Report

_CHARTED = 20  # feeds


def page(report: Report) -> str:
    """The page. Every text in it is escaped, whoever wrote it, and none is a formula to a spreadsheet."""
    # Not the sandbox of exporters: the template is ours.
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_plain, trim_blocks=True)
    environment.filters |= {"n": _number, "share": _share, "when": clock.minute}
    template = environment.from_string(resources.files("blocklist").joinpath("report.html").read_text(encoding="utf-8"))
    listing = [feed for feed in report.feeds if feed.category != "reference"]
    charts = {
        "days": report_charts.by_day(report.days),
        "categories": report_charts.by_category(report.categories),
        "feeds": report_charts.by_feed(listing[:_CHARTED]),
    }
    return template.render(r=report, listing=listing, charts=charts, charted=_CHARTED)


def _plain(value: object) -> object:
    if value is None:
        return ""
    return cell(value) if isinstance(value, str) and not isinstance(value, Markup) else value


# Numbers of ours are no formulas, whatever their sign.


def _number(value: int | float | None) -> Markup:
    return Markup("" if value is None else f"{value:,}")  # noqa: S704


def _share(part: float, whole: float = 1) -> Markup:
    return Markup(f"{part / whole:.1%}" if whole else "–")  # noqa: S704


__all__ = ["page"]
