"""nftables by libnftables (libnftables.h, nft(8)), or by the `nft` command where the library is missing.

Commands are text in nft's own language; each call is one transaction: all of it happens or nothing. One context is
kept, since making one costs more than using it; it belongs to the network namespace it was made in.
"""

import ctypes
import errno
import os

from hafen.values import NamedTuple

LIBRARY = "libnftables.so.1"
NFT_CTX_OUTPUT_JSON = 1 << 4
_COMMANDS = ("/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft")


class _Library(NamedTuple):
    """The functions of libnftables that are used, and a context."""

    lib: ctypes.CDLL
    context: ctypes.c_void_p


def _load() -> _Library | None:
    try:
        lib = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    lib.nft_ctx_new.restype = ctypes.c_void_p
    lib.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(lib, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(lib, name).argtypes = [ctypes.c_void_p]
        getattr(lib, name).restype = ctypes.c_char_p
    lib.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    context = lib.nft_ctx_new(0)
    if not context:
        return None
    pointer = ctypes.c_void_p(context)
    lib.nft_ctx_buffer_output(pointer)
    lib.nft_ctx_buffer_error(pointer)
    return _Library(lib, pointer)


class Nftables:
    """Runs nft commands in the network namespace it was made in. Used by one thread."""

    def __init__(self, *, library: bool = True) -> None:
        self._library = _load() if library else None
        self._command = next((path for path in _COMMANDS if os.access(path, os.X_OK)), "")

    @property
    def available(self) -> bool:
        return self._library is not None or bool(self._command)

    def close(self) -> None:
        if self._library is not None:
            self._library.lib.nft_ctx_free(self._library.context)
            self._library = None

    def run(self, commands: str, *, json: bool = False) -> str:
        """Perform the commands as one transaction and return what they print.

        OSError(ENOENT) where an object named does not exist, (EEXIST) where one exists already, (ENOSYS) where neither
        the library nor the command is installed, (EPERM) without CAP_NET_ADMIN, else (EINVAL).
        """
        if self._library is not None:
            return self._run_library(self._library, commands, json)
        if self._command:
            return self._run_command(commands, json)
        raise OSError(errno.ENOSYS, f"nftables: neither {LIBRARY} (package libnftables1) nor nft is installed")

    def _run_library(self, library: _Library, commands: str, json: bool) -> str:
        lib, context = library
        lib.nft_ctx_output_set_flags(context, NFT_CTX_OUTPUT_JSON if json else 0)
        status = lib.nft_run_cmd_from_buffer(context, commands.encode())
        output = bytes(lib.nft_ctx_get_output_buffer(context) or b"").decode(errors="replace")
        complaint = bytes(lib.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace")
        if status != 0:
            raise _failure(complaint)
        return output

    def _run_command(self, commands: str, json: bool) -> str:
        """`nft -f -` with files in memory for its input and output: no pipe can fill up."""
        names = ("nft-stdin", "nft-stdout", "nft-stderr")
        files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in names]
        try:
            os.write(files[0], commands.encode())
            os.lseek(files[0], 0, os.SEEK_SET)
            arguments = [self._command, *(["-j"] if json else []), "-f", "-"]
            actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(files)]
            pid = os.posix_spawn(self._command, arguments, {"LC_ALL": "C"}, file_actions=actions)
            _, status = os.waitpid(pid, 0)
            output, complaint = (_contents(fd) for fd in files[1:])
        finally:
            for fd in files:
                os.close(fd)
        if status != 0:
            raise _failure(complaint)
        return output


def _contents(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")


def _failure(complaint: str) -> OSError:
    """libnftables tells what went wrong by text only; its last words are strerror(3)'s."""
    first = complaint.strip().partition("\n")[0]
    code = errno.EINVAL
    for candidate in (errno.ENOENT, errno.EEXIST, errno.EPERM, errno.EBUSY, errno.EOPNOTSUPP):
        if os.strerror(candidate) in first:
            code = candidate
    return OSError(code, f"nftables: {first or 'failed without a word'}")
