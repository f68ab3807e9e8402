"""The zygote: forks shims, and makes what can only be made inside another network namespace.

One thread and the lean set; started by `hafen.engine.zygote`. It holds nothing of any container: what it makes it
sends away and closes. It ends when the engine does.
"""

import fcntl
import gc
import os
import signal
import socket
import struct
import sys

from hafen import errors
from hafen.kernel import cgroup, consts, namespaces, process
from hafen.runtime import parent
from hafen.shim import keeper, protocol
from hafen.shim.fork import close_all_but
from hafen.spec import runtime_config

_IFREQ = struct.Struct("16sh22x")  # struct ifreq, netdevice(7)


def main(descriptor: int) -> None:
    """Serve the engine at the other end of `descriptor` until it hangs up."""
    engine = socket.socket(fileno=descriptor)
    close_all_but({descriptor})
    process.set_name("hafen-zygote")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps idle shims and shims whose engine restarts
    for signo in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(signo, signal.SIG_IGN)  # a terminal's Ctrl-C is the engine's to handle; we follow it
    zygote = Zygote(engine, parent.hierarchy())  # which every set-up finds again, forked with us
    _warm_up()
    gc.collect()
    gc.freeze()  # a collection in a shim would write to every page that it shares with us
    zygote.serve()


def _warm_up() -> None:
    """Decode one of everything, so that what is computed on first use is computed before the fork."""
    sample = {
        "ociVersion": "1.2.0",
        "process": {"user": {}, "capabilities": {}, "consoleSize": {}, "rlimits": [_RLIMIT]},
        "root": {"path": "/"},
        "mounts": [{"destination": "/"}],
        "hooks": {},
        "linux": {
            "resources": {"devices": [{"allow": True}], "memory": {}, "cpu": {}, "pids": {}, "blockIO": {}},
            "namespaces": [{"type": "pid"}],
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
        },
    }
    runtime_config.from_json(sample)


_RLIMIT = {"type": "RLIMIT_CORE", "hard": 0, "soft": 0}


class Zygote:
    def __init__(self, engine: socket.socket, hierarchy: cgroup.Hierarchy) -> None:
        self._engine = engine
        self._hierarchy = hierarchy
        self._home = namespaces.open_own("network")

    def serve(self) -> None:
        protocol.send(self._engine, {"event": "hello", "version": protocol.VERSION, "pid": os.getpid()})
        while True:
            received = protocol.receive(self._engine)
            if received is None:
                return
            message, descriptors = received
            made: list[int] = []
            try:
                fields = self._perform(message, descriptors, made)
                answer = {"id": message["id"], "ok": fields}
            except errors.HafenError as error:
                answer = {"id": message["id"], **errors.to_wire(error)}
            except OSError as error:
                answer = {"id": message["id"], **errors.to_wire(errors.System(str(error)))}
            try:
                protocol.send(self._engine, answer, made)
            except OSError:  # the engine is gone
                return
            protocol.close_all(made)
            protocol.close_all(descriptors)

    def _perform(self, message: protocol.Message, descriptors: list[int], made: list[int]) -> protocol.Message:
        """Appends the descriptors that go with the answer to `made`."""
        match message.get("op"):
            case "fork":
                ours, theirs = protocol.pair()
                made.append(theirs.detach())
                return {"pid": self._fork(ours)}
            case "netns":
                self._make_netns(made)
                return {}
            case "sockets":
                self._make_sockets(descriptors[0], message["specs"], made)
                return {}
            case op:
                raise errors.NotImplemented(f"the zygote (protocol {protocol.VERSION}) knows no {op!r}")

    def _fork(self, link: socket.socket) -> int:
        pid = os.fork()  # noqa: TID251 - this is what the zygote is for
        if pid:
            link.close()
            return pid
        status = 1
        try:
            close_all_but({link.fileno()})
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            process.set_name("hafen-shim")
            keeper.keep(link.detach(), self._hierarchy)
            status = 0
        except BaseException:  # noqa: BLE001 - the process's last boundary
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def _make_netns(self, made: list[int]) -> None:
        namespaces.unshare(consts.CLONE_NEWNET)
        try:
            made.append(namespaces.open_own("network"))
            made.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE).detach())
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                flags = _IFREQ.pack(b"lo", consts.IFF_UP)
                fcntl.ioctl(control, consts.SIOCSIFFLAGS, flags)
        finally:
            self._go_home()

    def _make_sockets(self, netns: int, specs: list[tuple[int, int, str, int]], made: list[int]) -> None:
        namespaces.setns(netns, consts.CLONE_NEWNET)
        try:
            for family, kind, address, port in specs:
                with socket.socket(family, kind) as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind((0, 0) if family == socket.AF_NETLINK else (address, port))
                    made.append(sock.detach())
        except OSError:
            protocol.close_all(made)
            made.clear()
            raise
        finally:
            self._go_home()

    def _go_home(self) -> None:
        try:
            namespaces.setns(self._home, consts.CLONE_NEWNET)
        except OSError:  # never seen; a zygote that is somewhere else must not go on
            os._exit(1)
