"""Every row of docs/precedence.md, proved three times: what exports write, what `why` says, what the rules say."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from precedence import CASES, Case, page
from worlds import Settled, exports, kind, settled

OUTPUTS = exports(dns="rpz", nets="cidr", urls="urls")


def written(here: Settled, asked: str) -> bool:
    """Does the file that knows this kind of thing block it?"""
    if kind(asked) == "url":
        return asked in here.selection("urls").urls["url"].to_list()
    if kind(asked) != "domain":
        return any(ip_address(asked) in ip_network(cidr) for cidr in here.selection("nets").networks["cidr"])
    said = {(n, s): b for n, s, b in here.selection("dns").domains.iter_rows()}
    labels = asked.split(".")
    chain = [(asked, False), *((".".join(labels[i:]), True) for i in range(len(labels)))]
    return next((said[key] for key in chain if key in said), False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_every_row_of_the_table(case: Case) -> None:
    world = case.world
    model = {"domain": world.blocks, "url": world.blocks_url}.get(kind(case.asked), world.blocks_address)
    assert model(case.asked) is case.blocked, "the model"
    with settled(world, OUTPUTS) as here, here.audit() as audit:
        assert written(here, case.asked) is case.blocked, "the columns"
        assert audit.why(case.asked, lines=False).blocked is case.blocked, "the single name"


def test_the_page_is_made_of_this_table() -> None:
    file = Path(__file__).parent.parent / "docs" / "precedence.md"
    assert file.read_text("utf-8") == page(), "run 'make docs'"
