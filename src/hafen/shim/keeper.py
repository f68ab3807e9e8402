"""The part of a shim that stays: parent of the container, and of a worker while there is work.

A process that runs Python writes to most of the pages it inherited (reference counts), and so pays for them. The
keeper runs almost nothing, and of that only what is written in C where there is a choice: `_socket` and not `socket`,
no objects of our own; each of these is worth 100 to 300 KiB per container. All the shim's work is done by a worker
that it forks (`hafen.shim.main`). One that has had nothing to do for a while hands its descriptors to the keeper and
ends. The keeper waits for any of them, or for the container's end, and forks the next worker, in about a millisecond.

    keeper -> engine    "<pid>"                      once, on the link, as soon as the shim is there
    worker -> keeper    "init <pid>"                 the container's first process, which is the keeper's child
                        "sleep <mask> <mask> ..."    + descriptors; the worker ends. Mask 0: only keep it. The first is
                                                     a memfd with the worker's state
    keeper -> worker    "exit <code>"                that first process has ended: 128 + n for signal n

A worker that ends without `sleep` has finished, or was killed; either way the keeper ends, and the container with it.
"""

import _socket
import os
import select
import signal

from hafen.kernel import process
from hafen.kernel.cgroup import Hierarchy
from hafen.shim import main
from hafen.shim.fork import fork

_MOST = 64  # descriptors; SCM_MAX_FD is 253
_MESSAGE = 1024
_SPACE = _socket.CMSG_SPACE(_MOST * 4)
_END = 1 << 30  # past every descriptor: a zygote has its few under the numbers that they had in the engine


def keep(link: int, hierarchy: Hierarchy) -> None:
    """The whole life of a shim; `link` is its first conversation with an engine. SIGCHLD has a handler already."""
    os.closerange(3, link)
    os.closerange(link + 1, _END)
    os.setsid()
    name = os.open("/proc/self/comm", os.O_WRONLY)
    os.write(name, b"hafen-shim")
    os.close(name)
    process.set_subreaper()
    ended, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        os.write(link, b"%d" % os.getpid())
    except BrokenPipeError:  # the engine ended meanwhile, and nobody needs this shim
        return

    codes: dict[int, int] = {}  # of children: the worker's, the first process's; until that is known, of all
    init, masks, descriptors, first = 0, [0], [link], True
    while True:
        init, masks, descriptors = _work(ended, codes, init, descriptors, first, hierarchy)
        if not masks:
            return
        first = False
        _wait(ended, codes, init, masks, descriptors)


def _wait(ended: int, codes: dict[int, int], init: int, masks: list[int], descriptors: list[int]) -> None:
    """Until there is work: a descriptor is ready, or the container has ended."""
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    for position, mask in enumerate(masks):
        if mask:
            poll.register(descriptors[position], mask)
    while init not in codes:
        for descriptor, _ in poll.poll():
            if descriptor != ended:
                return
            _reap(ended, codes, init, 0)


def _work(
    ended: int, codes: dict[int, int], init: int, descriptors: list[int], first: bool, hierarchy: Hierarchy
) -> tuple[int, list[int], list[int]]:
    """A worker's life; what it left: the first process, and masks and descriptors, none where it was the last."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    end = theirs.fileno()
    worker = fork(lambda: main.work(end, descriptors, hierarchy, first), {end, *descriptors})
    theirs.close()
    for descriptor in descriptors:
        os.close(descriptor)
    if first:
        _forget_engine()
    if init in codes:
        _tell(ours, codes[init])
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(ours.fileno(), select.POLLIN)
    masks: list[int] = []
    left: list[int] = []
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == ended:
                known = init in codes
                _reap(ended, codes, init, worker)
                if init in codes and not known:
                    _tell(ours, codes[init])
                continue
            data, received = _receive(ours)
            if data.startswith(b"sleep "):
                masks, left = [int(mask) for mask in data.split()[1:]], received
            elif data:
                init = int(data[5:])
                if init in codes:
                    _tell(ours, codes[init])
            else:  # it has ended, or is about to
                ours.close()
                while worker not in codes:
                    select.select([ended], [], [])
                    _reap(ended, codes, init, worker)
                return (init, masks, left) if codes.pop(worker) == 0 else (init, [], [])


def _receive(ours: _socket.socket) -> tuple[bytes, list[int]]:
    try:
        data, control, _, _ = ours.recvmsg(_MESSAGE, _SPACE, _socket.MSG_CMSG_CLOEXEC)
    except OSError:  # ECONNRESET
        return b"", []
    payload = control[0][2] if control else b""
    return data, [int.from_bytes(payload[at : at + 4], "little") for at in range(0, len(payload), 4)]


def _tell(ours: _socket.socket, code: int) -> None:
    try:
        ours.send(b"exit %d" % code, _socket.MSG_NOSIGNAL)
    except OSError:  # it has ended; the next one is told
        pass


def _reap(ended: int, codes: dict[int, int], init: int, worker: int) -> None:
    try:
        os.read(ended, 4096)
    except BlockingIOError:
        pass
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if not init or pid in (init, worker):
                code = os.waitstatus_to_exitcode(status)
                codes[pid] = code if code >= 0 else 128 - code
    except ChildProcessError:
        pass


def _forget_engine() -> None:
    """Standard error is the engine's until there is a container, and must not be held open longer."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
