"""Dates as publishers write them, to ISO 8601 in UTC: a day (`2026-11-24`) or a time (`2026-11-24T10:00:00Z`).

What could be read in two ways (03/04/2026) is not read at all. A time without a zone counts as UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

import polars as pl

_ISO = (
    r"^(19[7-9][0-9]|2[01][0-9]{2})[-/]([0-9]{2})[-/]([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,][0-9]+)?)?\s*"
    r"(Z|z|UTC|GMT|\(UTC\)|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9])?)?$"
)
_EPOCH = r"^(1[0-9]{9}|[2-3][0-9]{9})(?:[0-9]{3})?$"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Months of German machines where they differ: one large publisher writes its headers so.
_MONTH = {name: i for i, name in enumerate(_MONTHS, start=1)} | {"mär": 3, "mrz": 3, "mai": 5, "okt": 10, "dez": 12}
_CLOCK = re.compile(r"\b([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?\b")
_ZONE = re.compile(r"(?<![0-9])([+-])([0-9]{2}):?([0-9]{2})(?!:?[0-9])")
_DAY_FIRST = re.compile(r"\b([0-9]{1,2})\.?[ -]([a-zä]{3})[a-zä]*\.?(?:[ ,-]+([0-9]{4}))?\b")
_MONTH_FIRST = re.compile(r"\b([a-zä]{3})[a-zä]*\.?\s+([0-9]{1,2})(?:st|nd|rd|th)?\b(?!:)")
_YEAR = re.compile(r"(?<![0-9:])((?:19|20)[0-9]{2})(?![0-9:])")
_DOTTED = re.compile(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4})")
_LONGEST = 64
# Texts of odd shape are read one by one; a hostile column must not make that a loop over millions.
_ODD = 10_000


@lru_cache(maxsize=4096)
def read_date(text: str) -> str | None:
    """`text` as a day or a time; None when it is none, or could be two."""
    text = text.strip().strip("\"'")
    if not text or len(text) > _LONGEST:
        return None
    try:
        if match := re.match(_ISO, text):
            return _iso(match)
        if re.match(_EPOCH, text):
            return _text(datetime.fromtimestamp(int(text[:10]), UTC))
        if match := _DOTTED.fullmatch(text):  # 24.11.2026: only day first is written with dots
            return datetime(int(match[3]), int(match[2]), int(match[1]), tzinfo=UTC).strftime("%Y-%m-%d")
        return _words(text.lower())
    except (ValueError, OverflowError):
        return None


def _iso(match: re.Match[str]) -> str:
    year, month, day = int(match[1]), int(match[2]), int(match[3])
    if match[4] is None:
        return datetime(year, month, day, tzinfo=UTC).strftime("%Y-%m-%d")
    at = datetime(year, month, day, int(match[4]), int(match[5]), int(match[6] or 0), tzinfo=_zone(match[7] or ""))
    return _text(at)


def _words(text: str) -> str | None:
    """`Sat, 22 Aug 2026 03:00:29 +0200` (RFC 5322), `So 24. Jul 12:25:34 UTC 2022`, `Nov 24 2026`."""
    found, order = _DAY_FIRST.search(text), (1, 2)
    if found is None or found[2] not in _MONTH:
        found, order = _MONTH_FIRST.search(text), (2, 1)
    if found is None or found[order[1]] not in _MONTH:
        return None
    years = [int(y) for y in _YEAR.findall(text)]
    if len(set(years)) != 1:
        return None
    day = datetime(years[0], _MONTH[found[order[1]]], int(found[order[0]]), tzinfo=UTC)
    clock = _CLOCK.search(text)
    if clock is None:
        return day.strftime("%Y-%m-%d")
    zone = _zone(match[0] if (match := _ZONE.search(text)) else "")
    return _text(day.replace(hour=int(clock[1]), minute=int(clock[2]), second=int(clock[3] or 0), tzinfo=zone))


def _zone(text: str) -> timezone:
    if match := _ZONE.fullmatch(text):
        minutes = int(match[2]) * 60 + int(match[3])
        return timezone(timedelta(minutes=-minutes if match[1] == "-" else minutes))
    return UTC


def _text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_dates(texts: pl.Series) -> pl.Series:
    """`read_date` of every text (String), null where it reads none."""
    frame = pl.DataFrame({"text": texts.str.strip_chars().str.strip_chars("\"'")})
    parts = pl.col("text").str.extract_groups(_ISO)
    frame = frame.with_columns(*(parts.struct.field(str(i)).alias(f"g{i}") for i in range(1, 8)))
    day = pl.concat_str("g1", pl.lit("-"), "g2", pl.lit("-"), "g3")
    written = pl.concat_str(
        day, pl.lit("T"), "g4", pl.lit(":"), "g5", pl.lit(":"), pl.col("g6").fill_null("00"), ignore_nulls=False
    )
    digits = pl.col("g7").str.replace_all(":", "")
    offset = (
        pl.when(pl.col("g7").str.contains(r"^[+-]"))
        .then(
            pl.when(digits.str.starts_with("-")).then(-1).otherwise(1)
            * (
                digits.str.slice(1, 2).cast(pl.Int64, strict=False) * 60
                + digits.str.slice(3, 2).cast(pl.Int64, strict=False)
            )
        )
        .otherwise(0)
    )
    at = written.str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False) - pl.duration(minutes=offset)
    done = frame.select(
        "text",
        pl.when(pl.col("g4").is_null())
        .then(day.str.to_date("%Y-%m-%d", strict=False).dt.strftime("%Y-%m-%d"))
        .otherwise(at.dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
        .alias("date"),
        pl.col("g1").is_null().alias("odd"),
    )
    odd = done.filter(pl.col("odd") & pl.col("text").is_not_null())["text"].unique(maintain_order=True).head(_ODD)
    if odd.is_empty():
        return done["date"]
    read = {text: date for text in odd if (date := read_date(text)) is not None}
    table = pl.DataFrame(
        {"text": list(read), "read": list(read.values())}, schema={"text": pl.String, "read": pl.String}
    )
    return done.join(table, on="text", how="left", maintain_order="left").select(
        pl.coalesce("date", pl.when("odd").then("read")).alias("date")
    )["date"]
