"""`blocklist allow`."""

from blocklist.cli.rules import group_for

command = group_for("allow", "Rules that free a name or network, whatever feeds say.")
