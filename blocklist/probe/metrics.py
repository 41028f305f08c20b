"""Reports in the text format of Prometheus (prometheus.io/docs/instrumenting/exposition_formats)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from blocklist.probe import FAILED, Report

_GAUGES: list[tuple[str, str, Callable[[Report], float | None]]] = [
    ("up", "1 when the engine answered", lambda r: float(r.state != "silent")),
    ("ok", "1 when the engine enforces the release, or is on its way to it", lambda r: float(r.state not in FAILED)),
    ("serial", "serial that the engine has", lambda r: r.served),
    ("expected_serial", "serial of the live release", lambda r: r.serial),
    ("releases_behind", "releases that the engine does not have yet", lambda r: r.behind),
    ("lag_seconds", "seconds since the first of them was published", lambda r: r.lag),
    ("canaries_asked", "canaries asked, each twice", lambda r: r.canaries),
    ("canaries_wrong", "canaries whose answer was not the one expected", lambda r: len(r.canaries_wrong)),
    ("sample_asked", "entries asked at random", lambda r: r.sampled),
    ("sample_missed", "entries of these on which the engine does not act", lambda r: r.missed),
    ("unanswered", "questions to which no answer came", lambda r: r.unanswered),
    ("seconds", "time that the questions took", lambda r: round(r.seconds, 3)),
]


def text(reports: Iterable[Report]) -> str:
    """All reports, a metric family after another."""
    return "".join(f"{line}\n" for line in _lines(list(reports)))


def _lines(reports: list[Report]) -> Iterator[str]:
    for name, meaning, value in _GAUGES:
        yield f"# HELP blocklist_probe_{name} {meaning}"
        yield f"# TYPE blocklist_probe_{name} gauge"
        for report in reports:
            if (number := value(report)) is not None:
                yield f"blocklist_probe_{name}{{{_labels(report)}}} {number:.15g}"
    for name, meaning, at in (
        ("set_elements", "elements of a firewall set in the kernel", 0),
        ("set_expected", "elements of a firewall set in the published file", 1),
    ):
        yield f"# HELP blocklist_probe_{name} {meaning}"
        yield f"# TYPE blocklist_probe_{name} gauge"
        for report in reports:
            for each, counts in report.sets.items():
                yield f'blocklist_probe_{name}{{{_labels(report)},set="{_escaped(each)}"}} {counts[at]}'


def _labels(report: Report) -> str:
    pairs = [("export", report.export), ("engine", report.engine), ("role", report.role)]
    pairs += [("part", report.part)] if report.part else []
    return ",".join(f'{key}="{_escaped(value)}"' for key, value in pairs)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
