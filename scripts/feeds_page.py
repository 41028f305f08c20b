"""Prints docs/feeds.md: how a feed is described, then every feed of the catalogue. `make docs` writes it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from blocklist.catalog import CATEGORIES, Feed, decode_feed
from blocklist.decode import Problems

ROOT = Path(__file__).resolve().parent.parent

INTRO = """\
# Feeds

A feed is a TOML file: `feeds/ID.toml` in the package, `feeds.d/ID.toml` beside your `blocklist.toml`, or a table
`[feed.ID]` in it. The same keys everywhere; a `[feed.ID]` for a feed of the catalogue overrides single keys of it.
This page is made from the catalogue by `make docs`.

    blocklist feeds                      every feed, which are enabled
    blocklist feeds show urlhaus-hosts   one feed: its facts, its snapshots, what was rejected and why
    blocklist feeds test FILE            what would be read from a file or URL, and what not

## Keys

| key | meaning | default |
|---|---|---|
| `title` | name for people | needed |
| `url` | `https:`, `http:` or `file:`; a list is one feed in parts: if one part fails, the feed fails | needed |
| `category` | {categories} | needed |
| `format` | a name, or a table with the options below | `"auto"` |
| `publisher`, `homepage` | who publishes it, where it is described | empty |
| `contact` | where a false positive is reported | empty |
| `mirrors` | URLs tried in order for the same content | none |
| `past_urls` | where it used to be | none |
| `kinds` | `domain`, `ipv4`, `ipv6`, `url`: anything else in it is counted and left out | all |
| `scope` | `exact` or `subtree` for every name, whatever the format means | by format |
| `confidence` | 0 to 100: how sure is a listing here? | 50 |
| `direction` | for packet filters: `inbound`, `outbound`, `both` | by category: attack-source in, c2 out, else both |
| `action` | reference feeds: `hold` what they name, or only `inform` | `hold` |
| `family` | feeds of one family are copies of each other and count once | none |
| `mode` | `shadow`: recorded and explained, never exported | `live` |
| `min_interval` | not asked again sooner | `5m`; `0` for `[feed.ID]` of your own |
| `update` | how often the publisher says it changes | `1d` |
| `max_size` | reading stops there, after decompression | `128MB` |
| `min_entries` | the gate: with fewer entries a download waits for you | 0 |
| `max_shrink`, `max_growth` | the gate: so large a share lost, so many times as many | 0.5, 5.0 |
| `check_count` | the gate: compare with the count that the file states | `true` |
| `max_new_holds` | the gate of a reference: so many exported entries newly held | 100 |
| `licence`, `commercial_use` | SPDX where possible; `unknown` where it was not recorded | `unknown` |
| `allow_private` | may be fetched from a private or loopback address | `false` |
| `url_hosts` | a URL with a path stands for its host | `false` |
| `first` | only the first N entries (ranked lists) | all |
| `enabled` | in the starter set, used when `[feeds] enable` is not given | `false` |
| `source` | where the facts above come from | empty |

Options of `format`:

| key | meaning |
|---|---|
| `name` | `auto`, `hosts`, `lines`, `wildcard`, `adblock`, `dnsmasq`, `unbound`, `csv`, `jsonl`, `scored`, `misp` |
| `value` | csv, jsonl: the column or key that holds the indicator; a number counts from 1 |
| `confidence`, `category`, `scope`, `kind` | columns by which a row says otherwise than its feed |
| `reason`, `reference`, `date`, `expires` | columns that say more: kept, and shown by `why` |
| `where` | only rows whose columns have these values: `where = {{ match = "exact" }}` |
| `skip_if` | jsonl: objects with this key are metadata |
| `delimiter`, `header` | csv: one ASCII character (`,`), whether the first record names the columns (`true`) |

What a line means where neither feed nor row says so: `hosts`, `lines`, `csv`, `jsonl` name one host (`exact`);
`wildcard`, `adblock`, `dnsmasq`, `unbound` name a host and everything below it (`subtree`).

## Catalogue

**Bold** feeds are the starter set. A licence that is `unknown` was not recorded where the facts come from: ask the
publisher before you pass such data on. The URL of each feed is in its file.
"""


def catalogue() -> list[Feed]:
    problems = Problems()
    found = [
        decode_feed(path.stem, path.name, tomllib.loads(path.read_text("utf-8")), problems)
        for path in sorted((ROOT / "feeds").glob("*.toml"))
    ]
    if problems.lines:
        raise SystemExit("\n".join(problems.lines))
    return [feed for feed in found if feed is not None]


def main() -> None:
    print(INTRO.format(categories=", ".join(f"`{c}`" for c in CATEGORIES)))
    feeds = catalogue()
    for category in CATEGORIES:
        rows = [feed for feed in feeds if feed.category == category]
        if not rows:
            continue
        print(f"### {category}\n")
        print("| id | what | publisher | kinds | confidence | licence | commercial use |")
        print("|---|---|---|---|--:|---|---|")
        for feed in rows:
            name = f"**{feed.id}**" if feed.enabled else feed.id
            link = f"[{feed.publisher}]({feed.homepage})"
            kinds = ", ".join(feed.kinds)
            confidence = "" if feed.is_reference else feed.confidence
            print(
                f"| {name} | {feed.title} | {link} | {kinds} | {confidence} | {feed.licence} | {feed.commercial_use} |"
            )
        print()
    print("Categories without a feed here are for your own: " + ", ".join(_unused(feeds)) + ".")


def _unused(feeds: list[Feed]) -> list[str]:
    used = {feed.category for feed in feeds}
    return [f"`{category}`" for category in CATEGORIES if category not in used]


if __name__ == "__main__":
    main()
