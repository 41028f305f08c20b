"""The text around the entries: small Jinja templates in a sandbox, given checked options and counts only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from blocklist.errors import ConfigError

if TYPE_CHECKING:
    from jinja2 import Template

# What nearly all frames consist of, besides text: `{{ options.list }}`, and lines between `{% if options.list %}` and
# `{% endif %}`.
_NAME = r"(title|name|entries|records|serial|options\.[a-z][a-z0-9_]*)"
_VALUE = re.compile(rf"(?<!\{{)\{{\{{ {_NAME} \}}\}}")
_IF = re.compile(rf"^\{{% if {_NAME} %\}}\n(.*?)^\{{% endif %\}}(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_OTHER = re.compile(r"\{[{%#]|\r")


def is_plain(source: str) -> bool:
    """Is `source` a template that is filled without Jinja, which takes 50 ms to import?"""
    return _OTHER.search(_VALUE.sub("", _IF.sub(r"\2", source))) is None


@lru_cache(maxsize=64)
def compile_frame(source: str) -> Template:
    """`source` as a template. Raises jinja2.TemplateError when it is not one."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Autoescape is HTML's; here every value has been checked against a pattern instead.
    environment = ImmutableSandboxedEnvironment(
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        newline_sequence="\n",
    )
    return environment.from_string(source)


def fill(source: str, values: Mapping[str, object], place: str) -> str:
    """`source` with `values`, ending in a newline unless empty. Raises ConfigError if that is not ASCII."""
    if not source:
        return ""
    try:
        text = _fill_plain(source, values) if is_plain(source) else _render(source, values, place)
    except KeyError:
        text = _render(source, values, place)  # which says what is missing
    if not text.isascii() or any(not (char.isprintable() or char in "\t\n") for char in text):
        raise ConfigError(f"{place}: gives text that is not printable ASCII")
    return text if text.endswith("\n") or not text else text + "\n"


def _fill_plain(source: str, values: Mapping[str, object]) -> str:
    """What Jinja makes of a plain template. Raises KeyError for what has no value, or has one to Jinja alone."""

    def value(name: str) -> object:
        found: Any = values
        for word in name.split("."):
            if hasattr(found, word):  # `options.get` is a method
                raise KeyError(word)
            found = found[word]
        return found

    lines = _IF.sub(lambda part: part[2] if value(part[1]) else "", source.removesuffix("\n"))
    return _VALUE.sub(lambda part: str(value(part[1])), lines)


def _render(source: str, values: Mapping[str, object], place: str) -> str:
    from jinja2 import TemplateError

    try:
        return compile_frame(source).render(values)
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{place}: {error}") from error
