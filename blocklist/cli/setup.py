"""What most commands need first: the configuration, the formats, the open record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from blocklist.cli.configured import configured
from blocklist.cli.screen import Screen
from blocklist.config import LOCAL_SETS, Config
from blocklist.decode import Problems
from blocklist.errors import ConfigError

if TYPE_CHECKING:
    from blocklist.publish.descriptor import Format
    from blocklist.store.record import Record


def configuration(screen: Screen) -> tuple[Config, Mapping[str, Format]]:
    """Configuration and formats, with the mistakes that only show when both are known."""
    from blocklist.publish.descriptor import catalogue

    config = configured(screen)
    formats = catalogue(config.formats_folder)
    problems = Problems()
    for export in config.exports.values():
        if problems.choose(f"export.{export.name}.format", export.format, formats, "format"):
            fmt = formats[export.format]
            if export.model is not None:
                if fmt.models:
                    problems.choose(f"export.{export.name}.model", export.model, fmt.models, "model")
                else:
                    problems.add(f"export.{export.name}.model", f"{fmt.name} knows no models; set max_entries instead")
            try:
                formats[export.format].settle({**export.options, "serial": 1}, f"export.{export.name}.options")
            except ConfigError as error:
                problems.lines += error.message.splitlines()
            for engine in export.probe:
                if (wanted := _asks(engine, fmt)) is not None:
                    problems.add(f"export.{export.name}.probe", f"{engine!r} can be asked about {wanted}")
            if (export.delivery != "file" or export.primary) and formats[export.format].code != "rpz":
                problems.add(f"export.{export.name}.delivery", "and 'primary' are for zones: format = \"rpz\"")
    if problems.lines:
        where = config.path or "built-in defaults"
        raise ConfigError(
            "\n".join(f"{where}: {line}" for line in problems.lines),
            hint="nothing was run; mend these and run the command again",
        )
    return config, formats


def _asks(engine: str, fmt: Format) -> str | None:
    """What `engine` can be asked about, where that is not a list in `fmt`; else None."""
    if engine in LOCAL_SETS:
        return None if fmt.code == engine else f'format = "{engine}"'
    if engine.startswith("http:"):
        return (
            None if fmt.name in ("squid", "squid-dst", "squid-url") else "the lists of Squid, which answers by itself"
        )
    from blocklist.publish.reading import readable

    if fmt.code == "rpz" or (fmt.group == "dns" and fmt.code is None and readable(fmt)):
        return None
    return 'format = "rpz" and the other lists of names for resolvers'


@contextmanager
def writing(config: Config, screen: Screen, command: str, first: Callable[[], None] | None = None) -> Iterator[Record]:
    """The record, locked and open for writing. No list waits for a screen that can't be written to.

    `first` is called with the lock held, before the record is opened.
    """
    from blocklist.shortage import narrow
    from blocklist.store.lock import Lock
    from blocklist.store.record import Record

    if (remark := narrow()) is not None:
        screen.note(remark)

    with screen.at_work(), Lock(config.state, command, wait=10.0, told=screen.note):
        if first is not None:
            first()
        record = Record.open(config.state)
        try:
            yield record
        finally:
            record.close()
