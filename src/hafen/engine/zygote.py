"""Start the zygote from a sealed copy of the interpreter, keep one alive, and keep warm what it makes.

The copy is a memfd that nobody can write any more (memfd_create(2), F_SEAL_WRITE): a container's first process still
is this interpreter when it executes `/proc/self/exe`, and must not be able to change it (CVE-2019-5736).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from hafen import errors
from hafen.engine.conversation import Answer, Conversation
from hafen.shim import protocol

_MFD_EXEC = 0x0010  # linux/memfd.h, since 6.3: executable whatever vm.memfd_noexec says
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

_ATTEMPTS = 6
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from hafen.shim.zygote import main; main(int(sys.argv[2]))"


@dataclass(frozen=True, slots=True)
class Idle:
    """A shim that waits for its container."""

    pid: int
    link: socket.socket

    def alive(self) -> bool:
        """Whether it still holds its end; an idle shim never speaks first."""
        try:
            return bool(self.link.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        self.link.close()


@dataclass(frozen=True, slots=True)
class NetnsHandle:
    """A network namespace: its descriptor, and a NETLINK_ROUTE socket opened inside it. `lo` is up."""

    fd: int
    rtnetlink: socket.socket

    def close(self) -> None:
        os.close(self.fd)
        self.rtnetlink.close()


class SocketSpec(NamedTuple):
    """A socket to make inside a network namespace: socket(2)'s family and type, bind(2)'s address and port."""

    family: int
    type: int
    address: str
    port: int


def sealed_interpreter() -> int:
    """A memfd with the bytes of this interpreter, sealed against every change; close-on-exec."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        sealed = os.memfd_create("hafen-python", flags | _MFD_EXEC)
    except OSError:  # EINVAL before 6.3
        sealed = os.memfd_create("hafen-python", flags)
    with open(os.path.realpath(sys.executable), "rb") as source:
        size = os.fstat(source.fileno()).st_size
        while size:
            size -= os.sendfile(sealed, source.fileno(), None, size)
    os.fchmod(sealed, 0o500)
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, _SEALS)
    return sealed


def _library_directory() -> str | None:
    """Where a shared libpython was loaded from: the dynamic linker cannot resolve `$ORIGIN` for a memfd (ld.so(8))."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if os.path.basename(path).startswith("libpython"):
                return "/" + os.path.dirname(path)
    return None


class Zygote:
    """The one zygote, restarted whenever it is found dead; and a few idle shims and network namespaces made ahead.

    A request that dies with a zygote is asked again of the next one: until an answer came nothing has happened.
    """

    def __init__(self, *, idle_shims: int, idle_netns: int) -> None:
        self._conversation: Conversation | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._interpreter = sealed_interpreter()
        self._shims = _Pool(idle_shims, self._fork)
        self._netns = _Pool(idle_netns, lambda: _then(self._request("netns"), _netns))
        self._forking: set[socket.socket] = set()
        self._closing = False

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        self._shims.fill()
        self._netns.fill()

    def close(self) -> None:
        """Idle shims and the zygote end by themselves when their conversations do; shims with a container stay."""
        self._closing = True
        if self._conversation is not None:
            self._conversation.close()
        for link in self._forking:
            asyncio.get_running_loop().remove_reader(link)
            link.close()
        self._forking.clear()
        self._shims.close()
        self._netns.close()
        os.close(self._interpreter)

    async def shim(self) -> Idle:
        """An idle shim, still alive a moment ago; Unavailable where all that are made end at once."""
        for _ in range(2 * _ATTEMPTS):
            idle = await self._shims.take()
            if idle.alive():
                return idle
            idle.close()
        raise errors.Unavailable("the processes that keep containers end as soon as they start; the log may say why")

    async def netns(self) -> NetnsHandle:
        return await self._netns.take()

    async def sockets(self, netns_fd: int, specs: Sequence[SocketSpec]) -> list[socket.socket]:
        """Bound sockets inside a network namespace, in the order of `specs`."""
        fields = [list(spec) for spec in specs]
        answer = await _persistently(lambda: self._request("sockets", [netns_fd], specs=fields))
        return [socket.socket(fileno=fd) for fd in answer.descriptors]

    async def set_sysctls(self, netns_fd: int, settings: Mapping[str, str]) -> None:
        """Write sysctls of a network namespace; System where the kernel refuses one."""
        fields = dict(settings)
        await _persistently(lambda: self._request("sysctls", [netns_fd], settings=fields))

    def _request(self, op: str, descriptors: Sequence[int] = (), **fields: object) -> asyncio.Future[Answer]:
        return self._talk().request(op, descriptors, **fields)

    def _fork(self) -> asyncio.Future[Idle]:
        """A shim says its pid on its link; the end of the link says that the zygote died before."""
        loop = asyncio.get_running_loop()
        forked: asyncio.Future[Idle] = loop.create_future()
        link, theirs = protocol.pair()
        link.setblocking(False)
        with theirs:
            self._talk().tell("fork", [theirs.fileno()])

        def ready() -> None:
            loop.remove_reader(link)
            self._forking.discard(link)
            pid = _first_word(link)
            if pid and not forked.done():
                forked.set_result(Idle(int(pid), link))
                return
            link.close()
            if not forked.done():
                forked.set_exception(errors.Unavailable("the zygote died"))

        self._forking.add(link)
        loop.add_reader(link, ready)
        return forked

    def _talk(self) -> Conversation:
        if self._closing:
            raise errors.Unavailable("the engine is shutting down")
        if self._conversation is None or self._conversation.closed:
            self._conversation = self._launch()
        return self._conversation

    def _launch(self) -> Conversation:
        ours, theirs = protocol.pair()
        source = os.path.dirname(os.path.dirname(os.path.abspath(errors.__file__)))
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        libraries = _library_directory()
        if libraries is not None:
            environment["LD_LIBRARY_PATH"] = libraries
        with theirs:
            # argv[0] is the real path: the interpreter finds its library by it and not by the memfd's name.
            program = [os.path.realpath(sys.executable), "-SI", "-c", _PROGRAM, source, str(theirs.fileno())]
            process = subprocess.Popen(
                program,
                executable=f"/proc/self/fd/{self._interpreter}",
                pass_fds=(self._interpreter, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd="/",
            )
        self._process = process
        return Conversation(ours, "the zygote", _ignore_event, lambda: _reap(process))


def _ignore_event(message: protocol.Message, descriptors: list[int]) -> None:
    """The zygote's hello; a zygote is always of this engine's own version."""
    protocol.close_all(descriptors)


def _reap(process: subprocess.Popen[bytes]) -> None:
    """It has hung up: it is dead or at its last instruction, and killing it cannot lose anything."""
    process.kill()
    process.wait()


def _first_word(link: socket.socket) -> bytes:
    try:
        return link.recv(64)
    except OSError:  # ECONNRESET
        return b""


def _netns(answer: Answer) -> NetnsHandle:
    netns, rtnetlink = answer.descriptors
    return NetnsHandle(netns, socket.socket(fileno=rtnetlink))


class _Closable(Protocol):
    def close(self) -> None: ...


_R = TypeVar("_R")
_T = TypeVar("_T", bound=_Closable)


async def _persistently(ask: Callable[[], asyncio.Future[_R]]) -> _R:
    """Ask the next zygote when one died over it; one that cannot start at all ends this with its error."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return await ask()
        except errors.Unavailable:
            pass
    return await ask()


def _then(asked: asyncio.Future[Answer], convert: Callable[[Answer], _R]) -> asyncio.Future[_R]:
    converted: asyncio.Future[_R] = asyncio.get_running_loop().create_future()

    def done(asked: asyncio.Future[Answer]) -> None:
        error = asked.exception()
        if converted.cancelled():
            if error is None:
                protocol.close_all(asked.result().descriptors)
        elif error is not None:
            converted.set_exception(error)
        else:
            converted.set_result(convert(asked.result()))

    asked.add_done_callback(done)
    return converted


class _Pool(Generic[_T]):
    """Keeps `size` items made ahead; refills when nobody has taken one for a moment, as making one costs a core."""

    QUIET = 0.03  # seconds

    def __init__(self, size: int, ask: Callable[[], asyncio.Future[_T]]) -> None:
        self._size = size
        self._ask = ask
        self._ready: deque[_T] = deque()
        self._coming = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def take(self) -> _T:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self.QUIET, self.fill)
        if self._ready:
            return self._ready.popleft()
        return await _persistently(self._ask)

    def fill(self) -> None:
        for _ in range(self._size - len(self._ready) - self._coming):
            self._coming += 1
            self._ask().add_done_callback(self._made)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        while self._ready:
            self._ready.pop().close()

    def _made(self, future: asyncio.Future[_T]) -> None:
        self._coming -= 1
        if future.cancelled() or future.exception() is not None:
            return  # a dying zygote: whoever needs an item next asks again and gets the error
        if self._closed:
            future.result().close()
        else:
            self._ready.append(future.result())
