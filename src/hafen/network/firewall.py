"""Our nftables table, kept equal to what lives; forwarding; and what of the host stands in the way."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Callable, Iterable

from hafen.errors import System
from hafen.kernel.nftables import Nftables
from hafen.kernel.nftevents import NftablesEvents
from hafen.network import ruleset
from hafen.network.driver import Network, Opening
from hafen.network.flows import Flows
from hafen.network.ruleset import Published

_IPV6_LINKS = "/proc/sys/net/ipv6/conf"
_FORWARDING = {4: "/proc/sys/net/ipv4/ip_forward", 6: "/proc/sys/net/ipv6/conf/all/forwarding"}


class Firewall:
    """One table. It remembers what belongs into it: where somebody flushes the ruleset (the restart of another
    firewall), the table is put back as soon as `watch` hears of it, or else with the next change."""

    def __init__(
        self,
        nftables: Nftables,
        table: str = "hafen",
        *,
        relay_mark: int = 0,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._warn = warn
        self._flows = Flows(warn)
        self._relay_mark = relay_mark
        self._nftables = nftables
        self._table = table
        self._networks: dict[str, Network] = {}
        self._published: dict[Published, None] = {}
        self._opened: frozenset[Opening] = frozenset()
        self._built = False
        self._handle = 0  # the kernel's, of the table that we built
        self._stop_watching = _nothing

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put the table back whenever somebody else removes it, perhaps with an old copy in its place: what it closes
        must not stay open."""
        try:
            events = NftablesEvents()
        except OSError:  # a kernel without nftables, where nothing is published either
            return

        def changed() -> None:
            try:
                if not events.removed(self._table) or not self._built or self._find() == self._handle:
                    return
                self._put_back()
            except (OSError, System) as error:
                self._warn(f"the nftables table {self._table} was removed and cannot be put back: {error}")
            else:
                self._warn(f"the nftables table {self._table} was removed by somebody else; it is there again")

        def stop() -> None:
            loop.remove_reader(events)
            events.close()

        loop.add_reader(events, changed)
        self._stop_watching = stop

    def close(self) -> None:
        """Forget descriptors; the table stays."""
        self._stop_watching()
        self._stop_watching = _nothing
        self._nftables.close()

    def add_network(self, network: Network) -> None:
        """Does nothing where it is there already."""
        if network.id in self._networks and self._built:
            return
        self._networks[network.id] = network
        try:
            self._change(ruleset.add_network(self._table, network))
        except BaseException:
            del self._networks[network.id]
            raise

    def remove_network(self, network: Network) -> None:
        if self._networks.pop(network.id, None) is None:
            return
        if self._networks:
            self._change(ruleset.remove_network(self._table, network))
        else:
            self.remove()

    def publish(self, ports: Iterable[Published]) -> None:
        new = list(ports)
        self._published.update(dict.fromkeys(new))
        try:
            self._change(ruleset.publish(self._table, new))
        except BaseException:
            for port in new:
                del self._published[port]
            raise
        self._flows.published(new)

    def withdraw(self, ports: Iterable[Published]) -> None:
        gone = [port for port in ports if port in self._published]
        for port in gone:
            del self._published[port]
        if gone:
            self._change(ruleset.withdraw(self._table, gone))
            self._flows.withdrawn(gone)

    def open(self, openings: Iterable[Opening]) -> None:
        """Let these through, and none that were let through before."""
        before, wanted = self._opened, frozenset(openings)
        if wanted == before:
            return
        self._opened = wanted
        try:
            closed = ruleset.close_links(self._table, before - wanted)
            self._change(closed + ruleset.open_links(self._table, wanted - before))
        except BaseException:
            self._opened = before
            raise

    def rebuild(self, networks: Iterable[Network], published: Iterable[Published]) -> None:
        """Put the whole table in place, in one transaction: connections that are under way notice nothing."""
        self._networks = {network.id: network for network in networks}
        self._published = dict.fromkeys(published)
        if self._networks:
            self._build()
            self._flows.restored(self._networks.values(), self._published)
        else:
            self.remove()

    def remove(self) -> None:
        """Take the table away, as if we had never been."""
        self._built = False
        try:
            self._nftables.run(ruleset.remove(self._table))
        except OSError as error:
            if error.errno != errno.ENOSYS:  # then there is none
                raise _failed(error) from error

    def _build(self) -> None:
        try:
            table = ruleset.build(self._table, self._networks.values(), self._published, self._opened, self._relay_mark)
            self._nftables.run(table)
            self._built = True
            self._handle = self._find()
        except OSError as error:
            raise _failed(error) from error

    def _find(self) -> int:
        """The number by which the kernel tells our table from others that had its name; 0 where there is none."""
        listed = json.loads(self._nftables.run("list tables inet", json=True))
        tables = [item["table"] for item in listed["nftables"] if "table" in item]
        return next((int(table["handle"]) for table in tables if table["name"] == self._table), 0)

    def _change(self, commands: str) -> None:
        """Perform a change that is already part of what we remember."""
        if not self._built:
            self._build()
            return
        try:
            self._nftables.run(commands)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EEXIST):
                raise _failed(error) from error
            self._put_back()  # somebody flushed the ruleset (a firewall's restart)

    def _put_back(self) -> None:
        """All that lives, where somebody removed it; with what was sent past it meanwhile."""
        self._build()
        self._flows.published(self._published)

    def blockers(self) -> list[str]:
        """What on the host would drop forwarded packets whatever we accept, in words for the user."""
        try:
            listed = json.loads(self._nftables.run("list chains", json=True))
        except (OSError, ValueError):
            return []
        chains = [item["chain"] for item in listed["nftables"] if "chain" in item]
        return [
            f"the host's firewall drops forwarded packets by default (chain {chain['name']} of table "
            f"{chain['family']} {chain['table']}): containers are cut off unless it accepts traffic from and to "
            f"Hafen's bridges"
            for chain in chains
            if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain["table"] != self._table
        ]


def _nothing() -> None:
    return None


def enable_forwarding(version: int = 4) -> str:
    """Switch the kernel's forwarding on. Returns what to tell the user, "" where it was on already."""
    path = _FORWARDING[version]
    try:
        if _read(path) != b"0":
            return ""
        if version == 6:
            _keep_router_advertisements()
        _write(path, b"1")
    except OSError as error:
        return f"IPv{version} forwarding is off and cannot be switched on ({error}): containers are cut off"
    return f"IPv{version} forwarding was off; it is now on ({path})"


def _keep_router_advertisements() -> None:
    """A host that forwards takes no address or default route from routers any more, unless it is told to
    (`accept_ra` 2 in Documentation/networking/ip-sysctl.rst): it would lose its own way out. Our bridges have 0."""
    for name in os.listdir(_IPV6_LINKS):
        path = f"{_IPV6_LINKS}/{name}/accept_ra"
        if name not in ("all", "default", "lo") and _read(path) == b"1":
            _write(path, b"2")


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read().strip()


def _write(path: str, value: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value)
    finally:
        os.close(descriptor)


def _failed(error: OSError) -> System:
    return System(str(error.strerror or error))
