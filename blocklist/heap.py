"""Memory for programs that make and drop large blocks all the time, as updates do.

glibc gives a block above a threshold (128 kB at first) its own mapping and returns it at once; every page of the next
one is then a page fault again: 0.8 of 8 seconds of processor for an update of 2.8 M lines where 1 % changed.
"""

from __future__ import annotations

# mallopt(3), malloc.h of glibc. Above half of the largest heap (32 MB) a threshold is refused.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MB = 1 << 20


# Whether this process is one that makes and drops large blocks.
large = False


def keep_freed() -> None:
    """Have the C library keep freed memory for the next use; without glibc, nothing happens."""
    import ctypes

    global large
    large = True
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((_M_MMAP_THRESHOLD, 32 * _MB), (_M_TRIM_THRESHOLD, 2047 * _MB), (_M_TOP_PAD, 64 * _MB)):
        mallopt(option, value)
