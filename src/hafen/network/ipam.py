"""Address pools and allocation; pure.

The default pools are Docker's: fifteen /16 networks from 172.17.0.0, then sixteen /20 of 192.168.0.0/16. An address
that was given back is handed out again only after all the others: neighbours may still remember who had it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from hafen.errors import Forbidden, InvalidArgument, System

IpNetwork = IPv4Network | IPv6Network
IpAddress = IPv4Address | IPv6Address

DEFAULT_POOLS: tuple[IPv4Network, ...] = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *IPv4Network("192.168.0.0/16").subnets(new_prefix=20),
)

_SEARCHED = 1024  # pools, of a /48's 65,536, among which one that nothing has a route to is looked for


def overlaps(one: IpNetwork, other: IpNetwork) -> bool:
    """Unlike ipaddress's own, also for networks of two families: those never do."""
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


class Taken(NamedTuple):
    """What a pool must not overlap, and what it should not as long as there is another: what the host only has routes
    to. A VPN may have one to all addresses there are (0.0.0.0/1 and 128.0.0.0/1)."""

    own: Sequence[IpNetwork] = ()
    routed: Sequence[IpNetwork] = ()

    def clash(self, subnets: Iterable[IpNetwork]) -> int:
        """How badly these subnets overlap that: 0 is not at all, 2 is what must not be."""
        several = list(subnets)
        for badness, others in ((2, self.own), (1, self.routed)):
            if any(overlaps(subnet, other) for subnet in several for other in others):
                return badness
        return 0


def choose_pool(taken: Taken, pools: Iterable[IpNetwork] = DEFAULT_POOLS) -> IpNetwork:
    """The first pool that does not clash, or else the first that overlaps nothing but routes; System where there is
    none."""
    second: IpNetwork | None = None
    for number, pool in enumerate(pools):
        if second is not None and number >= _SEARCHED:
            break
        badness = taken.clash((pool,))
        if not badness:
            return pool
        if badness == 1 and second is None:
            second = pool
    if second is not None:
        return second
    raise System(
        "all predefined address pools have been fully subnetted: name a subnet (--subnet), remove networks that nobody "
        "uses (network prune), or give the engine more (default-address-pools)"
    )


def parse_network(text: str, strict: bool = True) -> IpNetwork:
    """A subnet as users write it; host bits are refused where it is `strict`, as Docker does."""
    try:
        return ip_network(text, strict)
    except ValueError:
        pass
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise InvalidArgument(f"invalid subnet {text}: invalid CIDR block notation") from None
    raise InvalidArgument(f"invalid subnet {text}: it should be {network}")


def parse_address(text: str) -> IpAddress:
    try:
        return ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None


def mac_of(address: str) -> str:
    """The hardware address that goes with an IPv4 address: Docker's 02:42 and its four bytes."""
    return "02:42:" + IPv4Address(address).packed.hex(":")


class Pool:
    """The addresses of one subnet: which are taken, and which comes next."""

    def __init__(
        self, subnet: IpNetwork, ip_range: IpNetwork | None = None, reserved: Iterable[IpAddress] = ()
    ) -> None:
        self.subnet = subnet
        self._base = int(subnet.network_address)
        area = ip_range or subnet
        self._first = int(area.network_address) - self._base
        self._last = int(area.broadcast_address) - self._base
        self._taken = {int(address) - self._base for address in reserved}
        if subnet.num_addresses > 2:  # RFC 3021: a /31 has neither
            self._taken.add(0)
            if isinstance(subnet, IPv4Network):
                self._taken.add(subnet.num_addresses - 1)
        self._next = self._first

    @property
    def used(self) -> int:
        """How many are taken, those that nobody can have among them."""
        return len(self._taken)

    @property
    def free(self) -> int:
        """How many can still be handed out; at most 2**64 - 1."""
        taken = sum(1 for offset in self._taken if self._first <= offset <= self._last)
        return min(self._last - self._first + 1 - taken, (1 << 64) - 1)

    def allocate(self) -> IpAddress | None:
        """The next free address of the range, or None."""
        for offset in self._candidates():
            self._taken.add(offset)
            self._next = offset + 1
            return self._address(offset)
        return None

    def claim(self, address: IpAddress) -> None:
        """Take this very address; Forbidden where somebody has it, InvalidArgument where it is not in the subnet."""
        if address not in self.subnet:
            raise InvalidArgument(f"no configured subnet or ip-range contain the IP address {address}")
        offset = int(address) - self._base
        if offset in self._taken:
            raise Forbidden("Address already in use")
        self._taken.add(offset)

    def release(self, address: IpAddress) -> None:
        self._taken.discard(int(address) - self._base)

    def _candidates(self) -> Iterator[int]:
        start = self._next if self._first <= self._next <= self._last else self._first
        for area in (range(start, self._last + 1), range(self._first, start)):
            yield from (offset for offset in area if offset not in self._taken)

    def _address(self, offset: int) -> IpAddress:
        kind = IPv4Address if self.subnet.version == 4 else IPv6Address
        return kind(self._base + offset)
