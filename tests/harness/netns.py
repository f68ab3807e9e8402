"""Network namespaces for tests: one that plays the host, one that plays a neighbour machine, some for containers.

The test itself enters the host's namespace, so that code under test takes it for the machine's; sockets are opened
inside any namespace and used from the test. Nothing has a name anywhere: all is gone when the descriptors are closed.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_interface

from hafen.kernel import consts, namespaces, rtnetlink
from hafen.kernel.rtnetlink import Rtnetlink


class Netns:
    """A network namespace with `lo` up; has the shape of `hafen.network.driver.Netns`."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        before = namespaces.open_own("network")
        try:
            namespaces.unshare(consts.CLONE_NEWNET)
            self.fd = namespaces.open_own("network")
            self.rtnetlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
            self.route = Rtnetlink(self.rtnetlink.dup())
            self.route.execute(rtnetlink.set_link(1, up=True))
        finally:
            namespaces.setns(before, consts.CLONE_NEWNET)
            os.close(before)

    def close(self) -> None:
        os.close(self.fd)
        self.rtnetlink.close()
        self.route.close()
        for opened in self._sockets:
            opened.close()

    @contextmanager
    def entered(self) -> Iterator[None]:
        before = namespaces.open_own("network")
        namespaces.setns(self.fd, consts.CLONE_NEWNET)
        try:
            yield
        finally:
            namespaces.setns(before, consts.CLONE_NEWNET)
            os.close(before)

    def link_to(self, other: "Netns", name: str, own: str, theirs: str) -> None:
        """A cable between two: the link has the same name in both, with these addresses ("192.0.2.2/24")."""
        self.route.execute(rtnetlink.new_veth(name, name, other.fd, master=0, mac="02:00:00:00:00:01", mtu=1500))
        for namespace, address in ((self, own), (other, theirs)):
            link = namespace.route.link(name)
            assert link is not None
            interface = ip_interface(address)
            namespace.route.execute(
                rtnetlink.set_link(link.ifindex, up=True),
                rtnetlink.new_address(link.ifindex, str(interface.ip), interface.network.prefixlen),
            )

    def run(self, *command: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        """A command inside."""
        with self.entered():
            return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)

    def serve(self, port: int, address: str = "0.0.0.0") -> socket.socket:
        """A listening TCP socket inside."""
        with self.entered():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            made = socket.create_server((address, port), family=family)
        self._sockets.append(made)
        return made

    def stream(self, protocol: int) -> socket.socket:
        """An unbound stream socket of this protocol inside."""
        with self.entered():
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
        self._sockets.append(made)
        made.settimeout(5)
        return made

    def udp(self, port: int = 0, address: str = "0.0.0.0") -> socket.socket:
        """A bound UDP socket inside."""
        with self.entered():
            bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self._sockets.append(bound)
        bound.bind((address, port))
        bound.settimeout(5)
        return bound

    def connect(self, address: str, port: int, timeout: float = 5.0) -> socket.socket:
        with self.entered():
            made = socket.create_connection((address, port), timeout=timeout)
        self._sockets.append(made)
        return made

    def reaches(self, address: str, port: int) -> bool:
        """Whether a TCP connection is made; a dropped packet is a "no" after a moment."""
        try:
            self.connect(address, port, timeout=0.3).close()
        except OSError:
            return False
        return True


class World:
    """A host at 192.0.2.2, whose way out leads by a neighbour at 192.0.2.1. The test runs as on the host."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.host = self.container()
        self.neighbour = self.container()
        self.host.link_to(self.neighbour, "uplink", "192.0.2.2/24", "192.0.2.1/24")
        self.host.route.execute(rtnetlink.new_route("192.0.2.1"))
        self._stack.enter_context(self.host.entered())

    def container(self) -> Netns:
        """A fresh namespace, as the zygote makes them."""
        made = Netns()
        self._stack.callback(made.close)
        return made

    def give_ipv6(self) -> None:
        """IPv6 on the same cable: the host is 2001:db8::2, its way out 2001:db8::1."""
        for namespace, address in ((self.host, "2001:db8::2"), (self.neighbour, "2001:db8::1")):
            link = namespace.route.link("uplink")
            assert link is not None
            namespace.route.execute(rtnetlink.new_address(link.ifindex, address, 64))
        self.host.route.execute(rtnetlink.new_route("2001:db8::1"))

    def close(self) -> None:
        self._stack.close()

    def links(self) -> set[str]:
        return {link.name for link in self.host.route.links()}
