"""Which file a command names: the container's PATH, and the messages that runc gives when it names none."""

import errno
import os
import posixpath
import stat

from hafen.errors import StartFailed

_PREFIX = "unable to start container process: "


def failed(words: str, exit_code: int) -> StartFailed:
    """runc's sentence; the engine puts Docker's own before it."""
    return StartFailed(_PREFIX + words, exit_code)


def find(name: str, env: list[str]) -> str:
    """The path to execute, with the caller's present root, directory and privileges.

    StartFailed 127 where there is none, 126 where it cannot be executed (Go's os/exec LookPath words the messages).
    """
    if "/" in name:
        problem = _problem(name)
        if problem is None:
            return name
        number, call = problem
        words = os.strerror(number).lower()
        raise failed(f'exec: "{name}": {call}{words}', 127 if number == errno.ENOENT else 126)
    path = next((item[5:] for item in env if item.startswith("PATH=")), "")
    for directory in path.split(":") if path else ():
        candidate = posixpath.join(directory or ".", name)
        if name and _problem(candidate) is None:
            return candidate
    raise failed(f'exec: "{name}": executable file not found in $PATH', 127)


def _problem(path: str) -> tuple[int, str] | None:
    """Why `path` cannot be executed: errno, and the failing call for the message."""
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno or errno.ENOENT, f"stat {path}: "
    if stat.S_ISDIR(status.st_mode):
        return errno.EISDIR, ""
    if not os.access(path, os.X_OK, effective_ids=True):
        return errno.EACCES, ""
    return None


def enter_directory(path: str, *, last_try: bool) -> bool:
    """chdir to the working directory; False where only the user's own privileges may allow it (`last_try`: no more)."""
    try:
        os.chdir(path)  # noqa: TID251 - the child alone
    except PermissionError as error:
        if not last_try:
            return False
        raise _directory_error(path, error) from None
    except OSError as error:
        raise _directory_error(path, error) from None
    try:
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        inside = False
    if not inside:  # "(unreachable)...": a descriptor of the host leaked (CVE-2024-21626)
        raise failed("current working directory is outside of container mount namespace root", 128)
    return True


def _directory_error(path: str, error: OSError) -> StartFailed:
    words = os.strerror(error.errno or 0).lower()
    return failed(f'chdir to cwd ("{path}") set in config.json failed: {words}', 126)
