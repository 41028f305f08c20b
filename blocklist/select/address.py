"""What text is an address or a network: the definition, one value at a time, without Polars.

`blocklist.select.networks.parse` does the same in columns; a property test holds the two together.
"""

import ipaddress
import re

# ipaddress would also take netmasks, prefixes with leading zeros and, as IPv6, scope ids.
_PREFIX = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)
MAPPED = 0xFFFF  # the upper 96 bits of ::ffff:0:0/96, RFC 4291 §2.5.5.2


def parse_one(text: str) -> tuple[int, int, int] | None:
    """A strict address or CIDR as `(family, first, last)`, or None where it is neither.

    `family` is 4 or 6; `first` and `last` are the lowest and highest address as integers, host bits masked.
    IPv4 is a dotted quad without leading zeros, IPv6 any text of RFC 4291 §2.2 without a scope id; a prefix
    length is decimal without leading zeros. `::ffff:a.b.c.d/p` is IPv4 `/p-96`, and nothing for p < 96.
    No blanks.
    """
    address, slash, prefix = text.partition("/")
    if "%" in address or (slash and not _PREFIX.fullmatch(prefix)):
        return None
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    family, bits, value = parsed.version, parsed.max_prefixlen, int(parsed)
    length = int(prefix) if slash else bits
    if length > bits:
        return None
    if family == 6 and value >> 32 == MAPPED:
        if length < 96:
            return None
        family, bits, value, length = 4, 32, value & 0xFFFF_FFFF, length - 96
    hosts = (1 << (bits - length)) - 1
    return family, value & ~hosts, value | hosts
