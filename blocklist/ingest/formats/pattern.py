"""STIX patterns (STIX 2.1 §9) as the values any one of which is enough for a match."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from antlr4.error.Errors import RecognitionException
from antlr4.ParserRuleContext import ParserRuleContext
from antlr4.tree.Tree import TerminalNode
from stix2patterns.exceptions import ParseException
from stix2patterns.v21.grammars.STIXPatternParser import STIXPatternParser
from stix2patterns.v21.pattern import Pattern

_OBSERVABLES = frozenset({"domain-name", "ipv4-addr", "ipv6-addr", "url"})
_NETWORKS = frozenset({"ipv4-addr", "ipv6-addr"})
# Nodes that only join alternatives, or stand for what is inside them: OR of observations and of comparisons, brackets.
_TRANSPARENT = (
    STIXPatternParser.PatternContext,
    STIXPatternParser.ObservationExpressionsContext,
    STIXPatternParser.ObservationExpressionOrContext,
    STIXPatternParser.ObservationExpressionAndContext,
    STIXPatternParser.ObservationExpressionSimpleContext,
    STIXPatternParser.ObservationExpressionCompoundContext,
    STIXPatternParser.ComparisonExpressionContext,
    STIXPatternParser.ComparisonExpressionAndContext,
    STIXPatternParser.PropTestParenContext,
)


@dataclass(frozen=True)
class Alternatives:
    """What a pattern names: `values`, and how many of its alternatives are of another kind."""

    values: tuple[str, ...]
    unsupported: int


def alternatives(pattern: str) -> Alternatives | None:
    """The domains, addresses, networks and URLs of `pattern`; None when it is no pattern.

    Taken are `=`, `IN` and (networks) `ISSUBSET` on `domain-name:value`, `ipv4-addr:value`, `ipv6-addr:value` and
    `url:value`, joined by OR. What is joined by AND or FOLLOWEDBY, bound to times or repetition, negated or compared
    otherwise says more than one value can, and is unsupported.
    """
    try:
        tree = Pattern(pattern)
        found = list(tree.visit(_Reader()))
    except (ParseException, RecognitionException, RecursionError, AttributeError, ValueError):
        # AttributeError, ValueError: the library's own handling of some malformed patterns.
        return None
    return Alternatives(tuple(v for v in found if v is not None), found.count(None))


class _Reader:
    """A visitor that yields a value for each alternative, None for one that is unsupported.

    With a stack of its own: a thousand alternatives nest as deep.
    """

    def visit(self, tree: object) -> Iterator[str | None]:
        pending = [tree]
        while pending:
            node = pending.pop()
            if isinstance(node, TerminalNode):
                continue
            if not isinstance(node, _TRANSPARENT) or _joined(node):
                yield from _values(node)
            else:
                pending.extend(reversed(node.children))


def _joined(node: ParserRuleContext) -> bool:
    """Must several things hold, or hold in order?"""
    return any(
        isinstance(child, TerminalNode)
        and child.symbol.type in (STIXPatternParser.AND, STIXPatternParser.FOLLOWEDBY, STIXPatternParser.NOT)
        for child in node.children
    )


def _values(node: ParserRuleContext) -> Iterator[str | None]:
    equal, inside, subset = (
        isinstance(node, kind)
        for kind in (
            STIXPatternParser.PropTestEqualContext,
            STIXPatternParser.PropTestSetContext,
            STIXPatternParser.PropTestIsSubsetContext,
        )
    )
    if not (equal or inside or subset) or node.NOT() or (equal and node.NEQ()):
        yield None
        return
    kind, _, path = node.objectPath().getText().partition(":")
    if path != "value" or kind not in (_NETWORKS if subset else _OBSERVABLES):
        yield None
    elif equal:
        yield _literal(node.primitiveLiteral().getText())
    elif subset:
        yield _literal(node.StringLiteral().getText())
    else:
        for literal in node.setLiteral().primitiveLiteral():
            yield _literal(literal.getText())


def _literal(text: str) -> str | None:
    """The string in quotes, its escapes undone (§9.2); None where it is a number or a date."""
    if len(text) < 2 or text[0] != "'" or text[-1] != "'":
        return None
    out, characters = [], iter(text[1:-1])
    for character in characters:
        out.append(next(characters, "") if character == "\\" else character)
    return "".join(out)
