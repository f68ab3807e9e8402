"""A file or a tree as a tar stream, for `cp` into a container."""

import os
import stat
import tarfile
from collections.abc import Iterator

from hafen.client.copying import Place, Rename, base_name
from hafen.client.transport import CHUNK
from hafen.errors import Corrupt

BLOCK = 512


def pack(source: Place, rename: Rename | None) -> Iterator[bytes]:
    """The archive's entries begin with the source's last name, as `rename` has it."""
    name = source.rebase or base_name(source.path)
    seen: dict[tuple[int, int], str] = {}
    top = source.path.rstrip("/") or "/"
    yield from _entry(top, name if name != "/" else ".", rename, seen)
    yield bytes(2 * BLOCK)


def _entry(path: str, name: str, rename: Rename | None, seen: dict[tuple[int, int], str]) -> Iterator[bytes]:
    status = os.lstat(path)
    if stat.S_ISSOCK(status.st_mode):
        return  # tar has no such entry
    archived = rename.apply(name) if rename else name
    info = tarfile.TarInfo(archived)
    info.mode, info.uid, info.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    info.mtime = status.st_mtime
    _set_kind(info, path, status)
    key = (status.st_dev, status.st_ino)
    if info.isreg() and status.st_nlink > 1:
        if key in seen:
            info.type, info.linkname, info.size = tarfile.LNKTYPE, seen[key], 0
        else:
            seen[key] = archived
    _add_capability(info, path)
    if info.isreg():
        yield from _file(info, path)
        return
    yield info.tobuf(tarfile.PAX_FORMAT)
    if info.isdir():
        for child in sorted(os.listdir(path)):
            yield from _entry(os.path.join(path, child), f"{name}/{child}", rename, seen)


def _set_kind(info: tarfile.TarInfo, path: str, status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISFIFO(mode):
        info.type = tarfile.FIFOTYPE
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        info.type = tarfile.CHRTYPE if stat.S_ISCHR(mode) else tarfile.BLKTYPE
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    else:
        info.size = status.st_size


def _add_capability(info: tarfile.TarInfo, path: str) -> None:
    try:
        value = os.getxattr(path, "security.capability", follow_symlinks=False)
    except OSError:
        return  # most files have none, many file systems know none
    info.pax_headers = {"SCHILY.xattr.security.capability": value.decode("utf-8", "surrogateescape")}


def _file(info: tarfile.TarInfo, path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        info.size = os.fstat(file.fileno()).st_size
        yield info.tobuf(tarfile.PAX_FORMAT)
        left = info.size
        while left:
            chunk = file.read(min(left, CHUNK))
            if not chunk:
                raise Corrupt(f"{path} became shorter while it was copied")
            left -= len(chunk)
            yield chunk
    if info.size % BLOCK:
        yield bytes(BLOCK - info.size % BLOCK)
