"""The small tree of errors that a user may see: a message, a way out, an exit code."""


class BlocklistError(Exception):
    """Something a user can act on.

    `message` names the thing and the place, `hint` the way out. `exit_code` follows the contract:
    1 the run as a whole failed, 2 usage, 3 a feed failed or was gated, 4 a release was held or a check failed.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(BlocklistError):
    """The configuration can't be used; one error carries every mistake found, a line each."""


class RecordError(BlocklistError):
    """The database, a snapshot or a column file can't be read or written."""


class LockedError(RecordError):
    """Another process holds the record."""


class FeedError(BlocklistError):
    """One feed failed; the last good snapshot stays current and the others go on."""

    exit_code = 3


class FeedGated(FeedError):
    """A new snapshot was kept for inspection but not made current."""


class IndicatorError(BlocklistError):
    """A name, address, network or URL that a person typed is not one."""

    exit_code = 2


class ReleaseError(BlocklistError):
    """A release was held, or its file could not be checked, published or loaded."""

    exit_code = 4
