"""The text around the entries: small Jinja templates in a sandbox, given checked options and counts only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from blocklist.errors import ConfigError

if TYPE_CHECKING:
    from jinja2 import Template


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
    from jinja2 import TemplateError

    try:
        text = compile_frame(source).render(values)
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{place}: {error}") from error
    if not text.isascii() or any(not (char.isprintable() or char in "\t\n") for char in text):
        raise ConfigError(f"{place}: gives text that is not printable ASCII")
    return text if text.endswith("\n") or not text else text + "\n"
