"""`blocklist deny`."""

from blocklist.cli.rules import group_for

command = group_for("deny", "Rules that block a name or network, whatever feeds say.")
