"""Prints docs/feeds.md: how a feed is described, then every feed of the catalogue. `make docs` writes it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from blocklist.catalog import CATEGORIES, SETS_FILE, Catalog, Feed, decode_feed
from blocklist.decode import Problems
from blocklist.sets import PREFIX, consequences, sets_of

ROOT = Path(__file__).resolve().parent.parent

INTRO = """\
# Feeds

A feed is a TOML file: `feeds/ID.toml` in the package, `feeds.d/ID.toml` beside your `blocklist.toml`, or a table
`[feed.ID]` in it. The same keys everywhere; a `[feed.ID]` for a feed of the catalogue overrides single keys of it.
This page is made from the catalogue by `make docs`.

    blocklist feeds                      every feed by category, which are enabled, how the last run went
    blocklist feeds list --set attack    the feeds of a set; --category phishing, --enabled
    blocklist feeds sets                 what can be enabled at once, and what the licences ask
    blocklist feeds enable set:attack    in blocklist.toml; its comments stay. Likewise: blocklist feeds disable
    blocklist feeds show urlhaus-hosts   one feed: its facts, its snapshots, what was rejected and why
    blocklist feeds test FILE            what would be read from a file or URL, and what not

## Keys

| key | meaning | default |
|---|---|---|
| `title` | name for people | needed |
| `url` | `https:`, `http:`, `file:`, [others](#sources-of-many-documents); a list is one feed in parts | needed |
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
| `action` | references: `hold` what they name, only `inform`, or tell `sinkhole` and `parking` in verdicts | `hold` |
| `family` | feeds of one family are copies of each other and count once | none |
| `mode` | `shadow`: recorded and explained, never exported | `live` |
| `min_interval` | not asked again sooner | `5m`; `0` for `[feed.ID]` of your own |
| `update` | how often the publisher says it changes | `1d` |
| `max_size` | reading stops there, after decompression | `128MB` |
| `packed` | `gzip`, `zstd`, `zip`, `tar`, `tar.gz`, `tar.zst`, `none`; `auto` looks at the first bytes | `auto` |
| `member` | the file of the archive that is the list; `*` stands for anything | the only file in it |
| `auth` | which secret it needs and how it is sent: see below | none |
| `proxy` | `direct`, `environment` or `http://proxy.example:3128` for this feed | `[fetch] proxy` |
| `ca_file` | certificates (PEM) trusted for this feed besides the public authorities | `[fetch] ca_file` |
| `client_cert` | certificate and key (PEM, mode 600) that this feed's server asks for | none |
| `min_entries` | the gate: with fewer entries a download waits for you | 0 |
| `allow_empty` | the gate: a list that holds nothing may be right | `false` |
| `max_shrink`, `max_growth` | the gate: so large a share lost, so many times as many | 0.5, 5.0 |
| `check_count` | the gate: compare with the count that the file states | `true` |
| `max_held` | the gate: so large a share of what is new (from 50 entries on) is well known or your own | 0.2 |
| `max_new_holds` | the gate of a reference: so many exported entries newly held | 100 |
| `licence`, `commercial_use` | SPDX where possible; `unknown` where it was not recorded | `unknown` |
| `redistribution` | `forbidden`: never in an export for others than the house | `unknown` |
| `tsig` | the key of a zone transfer: `env:VARIABLE` or `file:PATH` | none |
| `allow_private` | may be fetched from a private or loopback address | `false` |
| `url_hosts` | a URL with a path stands for its host | `false` |
| `first` | only the first N entries (ranked lists) | all |
| `ranked` | the order of the list is a ranking, best known first: `held list` and plans say `rank 12` | `false` |
| `enabled` | in the starter set, used when `[feeds] enable` is not given | `false` |
| `source` | where the facts above come from | empty |

A key is never written into a configuration. `auth` names it and says how it is sent:

| `auth = …` | sent as |
|---|---|
| `{{ name = "abuseipdb", header = "Key" }}` | that header |
| `{{ name = "abuseipdb", bearer = true }}` | `Authorization: Bearer …` |
| `{{ name = "partner", basic = true }}` | `Authorization: Basic …`; the secret is `user:password` |
| `{{ name = "abusech", query = "auth-key" }}` | a field of the URL's query |
| `{{ name = "abusech" }}` | what replaces `{{secret}}` in the URL |

Its value is looked for in the variable `BLOCKLIST_SECRET_ABUSEIPDB`, in the folder that systemd's `LoadCredential=`
makes, and in `secrets/abuseipdb` beside `blocklist.toml`: a file of mode 600 of the user
that runs the update. It goes to the host of the feed's own URL and to no mirror, redirect, log, record or output.

Options of `format`:

| key | meaning |
|---|---|
| `name` | `auto`, `hosts`, `lines`, `wildcard`, `adblock`, `dnsmasq`, `unbound`, \
`csv`, `json`, `jsonl`, `scored`, `urls`, `maltrail`, `dshield`, `rpz`, `suricata`, `misp`, `stix` |
| `value` | csv, json, jsonl: the column or key that holds the indicator; \
a number counts from 1; of a list of them the first that is filled |
| `pointer` | json: where the list stands in the document (RFC 6901), such as `"/data"`; a list of them for several |
| `confidence`, `category`, `scope`, `kind` | columns by which a row says otherwise than its feed |
| `reason`, `reference`, `date`, `expires` | columns that say more: kept, and shown by `why` |
| `where` | rows with these values alone: `where = {{ match = "exact" }}`; `"true"` for JSON's `true` |
| `skip_if` | jsonl: objects with this key are metadata |
| `to_ids` | misp: only attributes that are marked for detection (`true`) |
| `delimiter`, `quote`, `header` | csv: one ASCII character (`,`; a blank for any run of white space), \
what cells may stand in (`"`, empty for nothing), whether the first record names the columns (`true`); \
a quoted cell may go on over line ends, 100 lines at most |

What a line means where neither feed nor row says so: `hosts`, `lines`, `csv`, `json`, `jsonl`, `urls` name one host
(`exact`); `wildcard`, `adblock`, `dnsmasq`, `unbound`, `maltrail` name a host and everything below it (`subtree`). A
zone (`rpz`) and rules (`suricata`) say it themselves. A range of addresses, `192.0.2.1-192.0.2.9`, may stand wherever
an address may. The first `# Reference: URL` above the trails of a `maltrail` list is their `reference`, until the next
comments. `auto` looks at the content and says what it chose and why: `blocklist feeds test FILE` shows it.

## Sources of many documents

| source | `url` | `format` | what is asked for |
|---|---|---|---|
| MISP feed | `https://…/manifest.json` | `misp` | the manifest, then events with a new timestamp |
| TAXII 2.1 collection | `taxii+https://…/collections/ID/` | `stix` | what was added; everything once a week |
| zone transfer | `axfr://PRIMARY/ZONE`, `axfr://PRIMARY:PORT/ZONE` | `rpz` | the serial, then IXFR or AXFR |

Each is kept as one text whose bytes depend on its content alone, and `why` shows the line of the attribute, the object
or the record. `max_size` holds for all documents together, and so do four times `[fetch] total`. One event that is
missing, or a transfer that is cut, fails the feed: the last good list stays.

A MISP event or a STIX bundle is read from any other URL too. From MISP come `domain`, `hostname`, `ip-src`, `ip-dst`,
`url` and their pairs with a port or an address; from STIX, `=` and `IN` on domain names, addresses and URLs, joined
by OR. What else they hold is counted.

A TSIG key never stands in the configuration: `tsig = "file:rpz.key"` names a file of mode 600 that belongs to you or
root, as `tsig-keygen` makes, `tsig = "env:RPZ_KEY"` a variable that holds `hmac-sha256:NAME:SECRET`.

    [feed.partner-zone]
    url = "axfr://192.0.2.53/rpz.example"
    format = "rpz"
    category = "malware"
    tsig = "file:rpz.key"

"""

CATALOGUE = """\
## Catalogue

**Bold** feeds are the starter set. A licence that is `unknown` was not recorded where the facts come from: ask the
publisher before you pass such data on. The URL of each feed, where its facts come from, and its contact are in its
file and in `blocklist feeds show ID`. Where a publisher states no cadence, `1d` is assumed.
"""

SETS = """\
## Sets

`enable = ["set:starter", "set:phishing"]` in `[feeds]` stands for all feeds of both; `disable` takes single ones out.
Nothing of disinformation is ever on by itself: such lists are contested and err, so enable them knowingly.
"""

ESSENTIAL = """\
## The essential list

`essential` comes with the program and is always in use: root servers, certificate status, time, system updates, large
mail, cloud and search services, code forges and public resolvers, so that guards are never empty. Every group of
`feeds/essential.txt` names its source. Only `[protect] essential = false` turns it off. While no other reference feed
is enabled, every update says so.

## Sanctioned media and orders

No authority keeps a public list of such names that a program could fetch, so the catalogue has none: your own orders
are a file of yours, each row with its reason, date and end.

    [feed.orders]
    title = "Orders of the regulator"
    url = "file:orders.csv"
    format = { name = "csv", value = "domain", reason = "order", date = "date", expires = "until" }
    category = "sanctioned-media"
    confidence = 100
"""


def catalogue() -> list[Feed]:
    problems = Problems()
    found = [
        decode_feed(path.stem, path.name, tomllib.loads(path.read_text("utf-8")), problems)
        for path in sorted((ROOT / "feeds").glob("*.toml"))
        if path.name != SETS_FILE
    ]
    if problems.lines:
        raise SystemExit("\n".join(problems.lines))
    return [feed for feed in found if feed is not None]


def main() -> None:
    print(INTRO.format(categories=", ".join(f"`{c}`" for c in CATEGORIES)))
    feeds = catalogue()
    show_sets(feeds)
    print(ESSENTIAL)
    print(CATALOGUE)
    for category in CATEGORIES:
        rows = [feed for feed in feeds if feed.category == category]
        if not rows:
            continue
        print(f"### {category}\n")
        print("| id | what | publisher | kinds | confidence | cadence | licence | commercial use |")
        print("|---|---|---|---|--:|--:|---|---|")
        for feed in rows:
            name = f"**{feed.id}**" if feed.enabled else feed.id
            link = f"[{feed.publisher}]({feed.homepage})" if feed.homepage else feed.publisher
            kinds = ", ".join(feed.kinds)
            confidence = "" if feed.is_reference else feed.confidence
            print(
                f"| {name} | {feed.title} | {link} | {kinds} | {confidence} | {feed.update} | {feed.licence} "
                f"| {feed.commercial_use} |"
            )
        print()
    print("Categories without a feed here are for your own: " + ", ".join(_unused(feeds)) + ".")


def show_sets(feeds: list[Feed]) -> None:
    catalog = Catalog({feed.id: feed for feed in feeds})
    print(SETS)
    print("| set | what | feeds | what their licences ask |")
    print("|---|---|---|---|")
    for name, found in sets_of(catalog).items():
        asks = "; ".join(consequences(catalog[i] for i in found.feeds)) or "nothing that is on record"
        print(f"| `{PREFIX}{name}` | {found.title} | {', '.join(found.feeds)} | {asks} |")
    print()


def _unused(feeds: list[Feed]) -> list[str]:
    used = {feed.category for feed in feeds}
    return [f"`{category}`" for category in CATEGORIES if category not in used]


if __name__ == "__main__":
    main()
