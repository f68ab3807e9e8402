"""The zygote: forks shims, and makes what can only be made inside another network namespace.

One thread and the lean set; started by `hafen.engine.zygote`. It holds nothing of any container: its children make
things and send them away. It ends when the engine does.
"""

import fcntl
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
from typing import NoReturn

from hafen import errors
from hafen.kernel import cgroup, consts, namespaces, process
from hafen.runtime import parent
from hafen.shim import keeper, protocol
from hafen.shim.fork import close_all_but
from hafen.spec import runtime_config

_FORK = b'{"op":"fork"}'
_REQUEST = 4096  # bytes
_SPACE = socket.CMSG_SPACE(4)
_IFREQ = struct.Struct("16sh22x")  # struct ifreq, netdevice(7)


def main(descriptor: int) -> None:
    """Serve the engine at the other end of `descriptor` until it hangs up."""
    engine = socket.socket(fileno=descriptor)
    close_all_but({descriptor})
    process.set_name("hafen-zygote")
    signal.signal(signal.SIGCHLD, _noticed)  # for the wake-up descriptors, here and in keepers
    for signo in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(signo, signal.SIG_IGN)  # a terminal's Ctrl-C is the engine's to handle; we follow it
    zygote = Zygote(engine, parent.hierarchy())  # which every set-up finds again, forked with us
    _warm_up()
    gc.collect()
    gc.freeze()  # a collection in a shim would write to every page that it shares with us
    zygote.serve()


def _noticed(*_: object) -> None:
    """A Python-level handler is needed for a wake-up descriptor to be written at all."""


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
    """Does nothing itself but fork: what it writes after a fork, the fork pays for (its copy becomes the only one).

    A shim is asked for by one fixed message, which need not be decoded; everything else is decoded, performed and
    answered by a child that ends.
    """

    def __init__(self, engine: socket.socket, hierarchy: cgroup.Hierarchy) -> None:
        self._engine = engine
        self._hierarchy = hierarchy

    def serve(self) -> None:
        ended, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(self._engine.fileno(), select.POLLIN)
        protocol.send(self._engine, {"event": "hello", "version": protocol.VERSION, "pid": os.getpid()})
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == ended:
                    _reap(ended)
                elif not self._take():
                    return

    def _take(self) -> bool:
        """One request; false at the end of the conversation."""
        try:
            data, control, _, _ = self._engine.recvmsg(_REQUEST, _SPACE, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return False
        if not data:
            return False
        given = int.from_bytes(control[0][2][:4], "little") if control else -1
        if os.fork() == 0:  # noqa: TID251 - this is what the zygote is for
            self._be_child(data, given)
        if given >= 0:
            os.close(given)
        return True

    def _be_child(self, data: bytes, given: int) -> NoReturn:
        status = 1
        try:
            if data == _FORK:
                keeper.keep(given, self._hierarchy)
            else:
                self._answer(json.loads(data), given)
            status = 0
        except BaseException:  # noqa: BLE001 - the process's last boundary
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def _answer(self, message: protocol.Message, given: int) -> None:
        made: list[int] = []
        try:
            _perform(message, given, made)
            answer = {"id": message["id"], "ok": {}}
        except errors.HafenError as error:
            answer = {"id": message["id"], **errors.to_wire(error)}
        except OSError as error:
            answer = {"id": message["id"], **errors.to_wire(errors.System(str(error)))}
        protocol.send(self._engine, answer, made)


def _reap(ended: int) -> None:
    """What we forked and whose engine, or container, has ended."""
    os.read(ended, 4096)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _perform(message: protocol.Message, given: int, made: list[int]) -> None:
    """Appends the descriptors that go with the answer to `made`. The process ends where this leaves it."""
    match message.get("op"):
        case "netns":
            _make_netns(made)
        case "sockets":
            _make_sockets(given, message["specs"], made)
        case "sysctls":
            _set_sysctls(given, message["settings"])
        case op:
            raise errors.NotImplemented(f"the zygote (protocol {protocol.VERSION}) knows no {op!r}")


def _make_netns(made: list[int]) -> None:
    namespaces.unshare(consts.CLONE_NEWNET)
    made.append(namespaces.open_own("network"))
    made.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE).detach())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, consts.SIOCSIFFLAGS, _IFREQ.pack(b"lo", consts.IFF_UP))


def _make_sockets(netns: int, specs: list[tuple[int, int, str, int]], made: list[int]) -> None:
    namespaces.setns(netns, consts.CLONE_NEWNET)
    sockets = []
    for family, kind, address, port in specs:
        sock = socket.socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((0, 0) if family == socket.AF_NETLINK else (address, port))
        sockets.append(sock)
    made += [sock.detach() for sock in sockets]


def _set_sysctls(netns: int, settings: dict[str, str]) -> None:
    """The files below /proc/sys/net are those of the namespace of whoever opens them."""
    namespaces.setns(netns, consts.CLONE_NEWNET)
    for name, value in settings.items():
        descriptor = os.open(f"/proc/sys/{name}", os.O_WRONLY | os.O_CLOEXEC)
        os.write(descriptor, value.encode())
        os.close(descriptor)
