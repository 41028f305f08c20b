"""Every engine that is here reads what is exported for it, and is asked twice for every name of the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from engines import proxies
from engines.lists import rendered
from engines.table import ASKED, fitted, given, meant, selected

from blocklist.publish import descriptor

FORMATS = descriptor.builtin()
WITH_NAMES = sorted(name for name, fmt in FORMATS.items() if "domain" in fmt.kinds and not fmt.of_rows)
# A resolver is asked for names; a final dot is of the wire, not of the question.
HOSTS = list(ASKED)


@pytest.mark.engine
@pytest.mark.parametrize("name", proxies.READS)
def test_the_engine_does_what_the_table_says(name: str) -> None:
    fmt = FORMATS[proxies.READS[name]]
    text, account = rendered(fmt.name, selected(fmt))
    assert account.lost == {}, "what can't be said is fitted before it is written"
    hosts = [host for host in HOSTS if not re.search(proxies.UNASKED.get(name, " "), host)]
    with proxies.engine(name, text, hosts) as blocks:
        first = {host: blocks(host) for host in hosts}
        again = {host: blocks(host) for host in hosts}
    print(
        f"\n{name} ({fmt.name}): " + " ".join(f"{host}={'blocked' if got else 'passes'}" for host, got in first.items())
    )
    wrong = [f"{host} ({ASKED[host]}): blocked={got}" for host, got in first.items() if got != given(fmt, host)]
    assert wrong == []
    assert again == first, "an answer from the cache is the same"


@pytest.mark.parametrize("name", WITH_NAMES)
def test_a_target_never_blocks_what_must_pass_and_counts_what_it_lets_pass(name: str) -> None:
    fmt = FORMATS[name]
    differ = [host for host in ASKED if given(fmt, host) != meant(host)]
    assert [host for host in differ if not meant(host)] == []
    assert bool(differ) <= bool(fitted(fmt).lost), f"{differ} pass without a count"


def test_the_page_of_conformance_is_up_to_date() -> None:
    from engines.page import page

    file = Path(__file__).parent.parent / "docs" / "conformance.md"
    assert file.read_text("utf-8") == page(), "make docs writes it anew"
