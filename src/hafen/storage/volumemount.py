"""Mount a local volume as its options say: mount(2) with what mount(8) would hand to it.

Options become flags and data as in moby's `sys/mount`; names of NFS and CIFS servers are resolved here, for the kernel
takes addresses only (moby `volume/local/local_unix.go`). Beyond Docker's: `loop`, an image in a file (mount(8)).
"""

from __future__ import annotations

import os
import re
import socket
from contextlib import ExitStack
from urllib.parse import unquote, urlsplit, urlunsplit

from hafen.errors import System
from hafen.kernel import consts as k
from hafen.kernel import loop
from hafen.kernel import mount as kernel
from hafen.spec.volumeoptions import LocalOptions

# option: (flags to set, flags to clear); mount(8), FILESYSTEM-INDEPENDENT MOUNT OPTIONS
_FLAGS: dict[str, tuple[int, int]] = {
    "defaults": (0, 0),
    "ro": (k.MS_RDONLY, 0),
    "rw": (0, k.MS_RDONLY),
    "nosuid": (k.MS_NOSUID, 0),
    "suid": (0, k.MS_NOSUID),
    "nodev": (k.MS_NODEV, 0),
    "dev": (0, k.MS_NODEV),
    "noexec": (k.MS_NOEXEC, 0),
    "exec": (0, k.MS_NOEXEC),
    "sync": (k.MS_SYNCHRONOUS, 0),
    "async": (0, k.MS_SYNCHRONOUS),
    "dirsync": (k.MS_DIRSYNC, 0),
    "mand": (k.MS_MANDLOCK, 0),
    "nomand": (0, k.MS_MANDLOCK),
    "noatime": (k.MS_NOATIME, 0),
    "atime": (0, k.MS_NOATIME),
    "nodiratime": (k.MS_NODIRATIME, 0),
    "diratime": (0, k.MS_NODIRATIME),
    "relatime": (k.MS_RELATIME, 0),
    "norelatime": (0, k.MS_RELATIME),
    "strictatime": (k.MS_STRICTATIME, 0),
    "nostrictatime": (0, k.MS_STRICTATIME),
    "bind": (k.MS_BIND, 0),
    "rbind": (k.MS_BIND | k.MS_REC, 0),
}
_PROPAGATION = {
    prefix + name: flag | recursive
    for name, flag in (("private", k.MS_PRIVATE), ("shared", k.MS_SHARED), ("slave", k.MS_SLAVE),
                       ("unbindable", k.MS_UNBINDABLE))
    for prefix, recursive in (("", 0), ("r", k.MS_REC))
}  # fmt: skip
_NETWORK = ("nfs", "nfs4", "cifs", "smb3")


def split(words: str) -> tuple[int, int, str]:
    """(MS_* flags, flags of a change of propagation, data for the file system) of comma-separated options."""
    flags = propagation = 0
    data: list[str] = []
    for word in words.split(",") if words else ():
        if word in _FLAGS:
            on, off = _FLAGS[word]
            flags = flags & ~off | on
        elif word in _PROPAGATION:
            propagation |= _PROPAGATION[word]
        elif word:
            data.append(word)
    return flags, propagation, ",".join(data)


def mount(options: LocalOptions, target: str) -> None:
    """System, with moby's text, where the kernel or a name server refuses."""
    device, words = _resolved(options)
    with ExitStack() as undo:
        if "loop" in words.split(","):
            words = ",".join(word for word in words.split(",") if word != "loop")
            try:
                fd, device = loop.attach(device, readonly="ro" in words.split(","))
            except OSError as error:
                reason = os.strerror(error.errno or 0).lower()
                raise System(f"failed to mount local volume: loop device for {device}: {reason}") from error
            undo.callback(os.close, fd)
        _mount(device, target, options.type, words)


def _mount(device: str, target: str, kind: str, words: str) -> None:
    flags, propagation, data = split(words)
    said = f"mount {device}:{target}"
    try:
        kernel.mount(device, target, kind, flags, data)
        said = f"remount {target}"
        try:
            if propagation:
                kernel.mount("", target, "", propagation)
            if flags & k.MS_BIND and flags & k.MS_RDONLY:  # mount(2): a bind takes no other flag than MS_REC
                kernel.mount("", target, "", flags | k.MS_REMOUNT)
        except OSError:
            kernel.umount(target, k.MNT_DETACH)
            raise
    except OSError as error:
        said += f", flags: 0x{flags:x}" if flags else ""
        said += f", data: {data}" if data else ""
        reason = os.strerror(error.errno or 0).lower()
        said = re.sub(r"(?<![^,\s])password=[^,:]*", "password=********", said)
        raise System(f"failed to mount local volume: {said}: {reason}") from error


def _resolved(options: LocalOptions) -> tuple[str, str]:
    """(device, words) with the server's address in the place of its name."""
    if options.type not in _NETWORK:
        return options.device, options.words
    words = options.words.split(",")
    for index, word in enumerate(words):
        key, _, value = word.partition("=")
        if key == "addr" and value:
            words[index] = f"addr={_address(value)}"
            return options.device, ",".join(words)
    if options.type in ("cifs", "smb3"):
        parts = urlsplit(options.device)
        if parts.hostname:
            user, at, _ = parts.netloc.rpartition("@")
            return unquote(urlunsplit(parts._replace(netloc=user + at + _address(parts.hostname)))), options.words
    return options.device, options.words


def _address(host: str) -> str:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        reason = error.strerror or str(error)
        raise System(f"error resolving passed in network volume address: lookup {host}: {reason}") from error
    # As Go's ResolveIPAddr: an IPv4 address where there is one.
    addresses = sorted(found, key=lambda item: item[0] != socket.AF_INET)
    return str(addresses[0][4][0])
