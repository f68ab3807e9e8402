"""What the kernel needs so that a relay may speak to containers with its clients' addresses (IP_TRANSPARENT, ip(7)).

Answers to such an address come from a bridge of ours and must end at the relay's socket instead of going on to whoever
has the address: the ruleset marks them (chain `relaying`), and a routing rule of ours takes what has that mark for
local (Documentation/networking/tproxy.rst).
"""

from __future__ import annotations

import errno
import zlib
from socket import AF_INET, AF_INET6

from hafen.kernel import rtnetlink
from hafen.kernel.netlink import Request
from hafen.kernel.rtnetlink import Rtnetlink

_PRIORITY = 18502  # before the main table; a rule without one of its own would be made again each time
_LOOPBACK = 1  # the index of `lo` in every namespace


def number(owner: str) -> int:
    """The mark and the routing table of this engine: no two on a machine should have the same."""
    return 0x48460000 | (zlib.crc32(owner.encode()) & 0xFFFF)


def enable(route: Rtnetlink, mark: int) -> None:
    """Also where it is there already."""
    for family in (AF_INET, AF_INET6):
        _perform(route, rtnetlink.new_mark_rule(family, _PRIORITY, mark, mark), errno.EEXIST)
        _perform(route, rtnetlink.new_local_route(family, mark, _LOOPBACK), errno.EEXIST)


def disable(route: Rtnetlink, mark: int) -> None:
    """Also where it is not there."""
    for family in (AF_INET, AF_INET6):
        _perform(route, rtnetlink.delete_mark_rule(family, _PRIORITY, mark, mark), errno.ENOENT)
        _perform(route, rtnetlink.delete_local_route(family, mark, _LOOPBACK), errno.ESRCH)


def _perform(route: Rtnetlink, request: Request, expected: int) -> None:
    try:
        route.execute(request)
    except OSError as error:
        if error.errno not in (expected, errno.EAFNOSUPPORT):  # a kernel without IPv6
            raise
