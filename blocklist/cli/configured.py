"""The configuration of a command, and a warning where the record that it will ask does not belong there."""

from __future__ import annotations

from blocklist.cli.screen import Screen
from blocklist.config import Config, load
from blocklist.store import identity
from blocklist.store.database import path_in


def configured(screen: Screen) -> Config:
    """Raises ConfigError."""
    config = load(screen.config_path)
    path = path_in(config.state)
    if identity.is_foreign(path):
        screen.warn(f"{path} {identity.words()}; see 'blocklist doctor'")
    return config
