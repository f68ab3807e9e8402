"""Maps of user and group ids for idmapped mounts (mount_setattr(2), MOUNT_ATTR_IDMAP); pure.

    uids=1000-0-1#2000-1-10;gids=1000-0-1

as podman's `--mount ...,idmap=` has it: on disk - in the container - how many. What no triple speaks of is seen as
nobody (65534), and cannot be written by who has such an id in the container (EOVERFLOW).
"""

from __future__ import annotations

from itertools import pairwise

from hafen.errors import InvalidArgument
from hafen.spec.runtime_config import IDMapping

Maps = tuple[tuple[IDMapping, ...], tuple[IDMapping, ...]]

_ALL = (1 << 32) - 1  # the last id, -1, is none
_MOST = 340  # user_namespaces(7): lines of a map


def parse(text: str) -> Maps:
    """(of users, of groups); without `gids` those of the users."""
    found: dict[str, tuple[IDMapping, ...]] = {}
    for part in text.split(";"):
        kind, equals, triples = part.partition("=")
        if kind not in ("uids", "gids") or not equals or kind in found:
            raise InvalidArgument(f"invalid idmap '{text}': uids=HOST-CONTAINER-COUNT[#...][;gids=...] is the form")
        found[kind] = tuple(_triple(triple, text) for triple in triples.split("#"))
    if "uids" not in found:
        raise InvalidArgument(f"invalid idmap '{text}': it has no uids")
    maps = found["uids"], found.get("gids", found["uids"])
    for one in maps:
        _check(one, text)
    return maps


def _triple(text: str, whole: str) -> IDMapping:
    numbers = text.split("-")
    if len(numbers) != 3 or not all(number.isdecimal() for number in numbers):
        raise InvalidArgument(f"invalid idmap '{whole}': '{text}' is not HOST-CONTAINER-COUNT")
    disk, seen, count = map(int, numbers)
    if not count or max(disk, seen) + count > _ALL:
        raise InvalidArgument(f"invalid idmap '{whole}': '{text}' is out of range")
    return IDMapping(disk, seen, count)


def _check(maps: tuple[IDMapping, ...], text: str) -> None:
    if len(maps) > _MOST:
        raise InvalidArgument(f"invalid idmap '{text}': more than {_MOST} ranges")
    for side in (0, 1):
        ranges = sorted((one[side], one[side] + one.size) for one in maps)
        if any(before[1] > after[0] for before, after in pairwise(ranges)):
            raise InvalidArgument(f"invalid idmap '{text}': ranges overlap")


def exchanged(one: int, other: int) -> tuple[IDMapping, ...]:
    """All ids as they are, but these two for each other."""
    low, high = sorted((one, other))
    if low == high:
        return (IDMapping(0, 0, _ALL),)
    ranges = [(0, low), (low + 1, high), (high + 1, _ALL)]
    same = [IDMapping(start, start, end - start) for start, end in ranges if start < end]
    return (*same, IDMapping(low, high, 1), IDMapping(high, low, 1))
