"""Paths inside volumes, held so that nobody can lead them elsewhere until a runtime has bound them.

Whoever has the volume may put a link in the place of any directory at any time (CVE-2021-25741), and a runtime looks
its paths up by name. So what was found is mounted where only the engine puts names, for the moments until the container
has its own mount of it, as moby does (`internal/safepath`); a descriptor would be of no use to another runtime.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from contextlib import ExitStack, suppress

from hafen.errors import HafenError, InvalidArgument, NotFound, System
from hafen.kernel import consts, fs, mount

_numbers = itertools.count()


def hold(directory: str, subpath: str, places: str, held: ExitStack) -> str:
    """The path, until `held` is closed, of a directory or file inside a volume that no link can lead out of. `places`:
    the directory of such mounts. Errors: Docker's."""
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = fs.openat2(root, subpath, consts.O_PATH, resolve=consts.RESOLVE_BENEATH | consts.RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        raise _explained(error, directory, subpath) from error
    finally:
        os.close(root)
    with ExitStack() as opened:
        opened.callback(os.close, found)
        tree = mount.bind_fd("", dirfd=found)
        opened.callback(os.close, tree)
        place = os.path.join(places, str(next(_numbers)))
        os.makedirs(places, 0o700, exist_ok=True)
        if stat.S_ISDIR(os.fstat(found).st_mode):
            os.mkdir(place, 0o700)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        held.callback(_release, place)
        target = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        opened.callback(os.close, target)
        mount.attach(tree, target)
    return place


def _explained(error: OSError, directory: str, subpath: str) -> HafenError:
    """With the texts of moby's safepath."""
    path = os.path.join(directory, subpath)
    reason = os.strerror(error.errno or 0).lower()
    if error.errno == errno.EXDEV:
        return InvalidArgument(f"path concatenation escapes the base directory, base: {directory}, subpath: {subpath}")
    if error.errno == errno.ENOENT:
        return NotFound(f"cannot access path {path}: lstat {path}: {reason}")
    if error.errno == errno.ELOOP:
        reason = "EvalSymlinks: too many links"
    return System(f'error while resolving symlinks in combined path "{path}": {reason}')


def sweep(places: str) -> None:
    """After a start: what an engine that was killed held."""
    with suppress(FileNotFoundError):
        for name in os.listdir(places):
            _release(os.path.join(places, name))


def _release(place: str) -> None:
    with suppress(OSError):  # EINVAL: nothing is mounted there
        mount.umount(place, consts.MNT_DETACH | consts.UMOUNT_NOFOLLOW)
    with suppress(OSError):
        os.unlink(place)
    with suppress(OSError):
        os.rmdir(place)
