"""A container's tar stream into a local directory, for `cp` out of one: nothing in it can name a place outside.

A container's owner chooses what is in the archive. Every directory on the way is opened with O_NOFOLLOW, relative to
the one before, so that neither `..` nor a symbolic link, be it in the archive or made meanwhile, leads out.
"""

import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hafen.client.copying import Rename
from hafen.client.transport import CHUNK
from hafen.errors import Corrupt

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ChunkReader:
    """`read(n)` over chunks, which is all that tarfile asks of a stream."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def read(self, size: int = CHUNK) -> bytes:
        parts, wanted = [], size
        while wanted:
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._rest = memoryview(chunk)
            parts.append(self._rest[:wanted])
            self._rest = self._rest[wanted:]
            wanted -= len(parts[-1])
        return b"".join(parts)


def unpack(chunks: Iterable[bytes], directory: str, rename: Rename | None) -> int:
    """Returns how many bytes of files were written. Raises Corrupt for a name that leads out."""
    written = 0
    directories: list[tuple[tuple[str, ...], tarfile.TarInfo]] = []
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reader = ChunkReader(chunks)
        with tarfile.open(fileobj=reader, mode="r|") as archive:  # type: ignore[call-overload]  # `read` is enough
            for member in archive:
                parts = _parts(rename.apply(_plain(member.name)) if rename else member.name)
                if not parts and not member.isdir():
                    raise Corrupt(f"the archive has an entry without a name: {member.name!r}")
                written += _place(root, parts, member, archive, rename)
                if member.isdir() and parts:
                    directories.append((parts, member))
        for parts, member in reversed(directories):
            with _parent(root, parts) as parent:
                _finish_directory(parent, parts[-1], member)
    except tarfile.TarError as error:
        raise Corrupt(f"the container's archive cannot be read: {error}") from error
    finally:
        os.close(root)
    return written


def _plain(name: str) -> str:
    """Without the `./` that some archives have before every name."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise Corrupt(f"the archive names a place outside of the destination: {name!r}")
    return parts


@contextmanager
def _parent(root: int, parts: tuple[str, ...]) -> Iterator[int]:
    """The directory of the last part, made where it is missing."""
    current = os.dup(root)
    try:
        for part in parts[:-1]:
            try:
                following = os.open(part, _DIRECTORY, dir_fd=current)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=current)
                following = os.open(part, _DIRECTORY, dir_fd=current)
            except NotADirectoryError:
                raise Corrupt(f"{'/'.join(parts)}: {part} is not a directory, or a symbolic link") from None
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


def _place(
    root: int, parts: tuple[str, ...], member: tarfile.TarInfo, archive: tarfile.TarFile, rename: Rename | None
) -> int:
    if not parts:
        return 0  # the destination itself
    with _parent(root, parts) as parent:
        name = parts[-1]
        if member.isdir():
            _make_directory(parent, name)
            return 0
        _remove_other(parent, name)
        if member.isreg():
            return _write(parent, name, member, archive)
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.islnk():
            target = _parts(rename.apply(_plain(member.linkname)) if rename else member.linkname)
            with _parent(root, target) as source:
                os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            return 0
        elif member.isfifo():
            os.mkfifo(name, member.mode & 0o777, dir_fd=parent)
        elif member.ischr() or member.isblk():
            kind = 0o020000 if member.ischr() else 0o060000
            device = os.makedev(member.devmajor, member.devminor)
            os.mknod(name, kind | member.mode & 0o777, device, dir_fd=parent)
        os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)
    return 0


def _make_directory(parent: int, name: str) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        os.close(_open_directory(parent, name))


def _open_directory(parent: int, name: str) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except NotADirectoryError:
        raise Corrupt(f"cannot overwrite non-directory {name!r} with directory") from None


def _remove_other(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        raise Corrupt(f"cannot overwrite directory {name!r} with non-directory") from None


def _write(parent: int, name: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> int:
    content = archive.extractfile(member)
    assert content is not None
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        while chunk := content.read(CHUNK):
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
        os.fchmod(fd, member.mode & 0o7777)
        os.utime(fd, (member.mtime, member.mtime))
    finally:
        os.close(fd)
    return member.size


def _finish_directory(parent: int, name: str, member: tarfile.TarInfo) -> None:
    """Last, as a directory without the write bit can take no entries, and every entry changes its time."""
    fd = _open_directory(parent, name)
    try:
        os.fchmod(fd, member.mode & 0o7777)
        os.utime(fd, (member.mtime, member.mtime))
    finally:
        os.close(fd)
