"""What a person can do about an error: one line below the message."""

import os
import stat

from hafen import errors


def hint(error: errors.HafenError) -> str:
    """The advice, or nothing where the message says it all."""
    cause = error.__cause__
    if isinstance(error, errors.Unavailable):
        if isinstance(cause, PermissionError):
            return _permission(str(error))
        if isinstance(cause, FileNotFoundError | ConnectionRefusedError) and os.geteuid() != 0:
            return (
                "Start the engine with: sudo hafen engine   (or run this command with sudo, which starts it by itself)"
            )
        if isinstance(cause, FileNotFoundError | ConnectionRefusedError):
            return "Start it there, or leave out -H, HAFEN_HOST and DOCKER_HOST to use (and start) the default engine"
    return ""


def _permission(message: str) -> str:
    """Name the group that owns the socket."""
    path = message.rpartition("unix://")[2]
    try:
        status = os.stat(path)
    except OSError:
        return "Run the command with sudo"
    group = str(status.st_gid)
    try:
        import grp

        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        pass  # a number without a name
    if status.st_gid == 0 or not status.st_mode & stat.S_IWGRP:
        return "Run the command with sudo"
    return (
        f"Members of the group {group} may use it: sudo usermod -aG {group} $USER, then log in again; or run with sudo"
    )


def absent_image(reference: str) -> str:
    """Where an image could come from."""
    name, _, tag = reference.rpartition("/")[2].partition(":")
    lines = [
        "The image is neither here nor there. What else could bring it:",
        "  hafen run host ...                    this machine's own root file system, always there",
        f"  hafen load -i FILE.tar                an archive made by `docker save {reference}`",
        f"  hafen import ROOT.tar {reference:15} a root file system as a tar archive",
    ]
    if name in ("debian", "ubuntu"):
        lines.append(
            f"  hafen image bootstrap {name}:{tag or 'stable'}   from the distribution's signed package archive"
        )
    else:
        lines.append("  hafen image bootstrap debian:bookworm   Debian or Ubuntu from the signed package archive")
    return "\n".join(lines)
