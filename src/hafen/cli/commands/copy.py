"""`cp`, both ways, with `-` as a tar stream."""

import os
import sys

from hafen.cli import terminal
from hafen.cli.command import Call, Command
from hafen.cli.output import err, human_size
from hafen.cli.progress import ByteBar
from hafen.client import containers
from hafen.client.copying import container_place, link_target, local_source, local_target, prepare
from hafen.client.engine import Document
from hafen.client.streams import write_all
from hafen.client.transport import file_body
from hafen.errors import InvalidArgument, NotFound


def split_container(argument: str) -> tuple[str, str]:
    """(container, path): a local path may have a colon after a slash or a dot."""
    if argument.startswith(("/", ".")) or ":" not in argument:
        return "", argument
    container, _, path = argument.partition(":")
    return ("", argument) if "/" in container else (container, path)


def _copy(call: Call) -> int:
    if not all(call.arguments):
        raise InvalidArgument("source can not be empty" if not call.arguments[0] else "destination can not be empty")
    source, target = (split_container(argument) for argument in call.arguments)
    if source[0] and target[0]:
        raise InvalidArgument("copying between containers is not supported")
    if source[0]:
        return _out_of(call, *source, target[1])
    if target[0]:
        return _into(call, source[1], *target)
    raise InvalidArgument("must specify at least one container source")


def _out_of(call: Call, container: str, path: str, destination: str) -> int:
    rebase = ""
    if call.flags.on("follow-link"):
        led = link_target(path, containers.path_stat(call.engine, container, path))
        if led is not None:
            rebase, path = os.path.basename(path.rstrip("/")), led
    if destination == "-":
        if terminal.is_terminal(1):
            raise InvalidArgument("cowardly refusing to write a tar archive to a terminal. Redirect it")
        _, response = containers.archive(call.engine, container, path)
        sys.stdout.flush()
        for chunk in response:
            write_all(1, [chunk])
        return 0
    from hafen.client.copying import Rename
    from hafen.client.unpack import unpack

    target = local_target(destination)
    stat, response = containers.archive(call.engine, container, path)
    source = container_place(path, stat)
    directory, rename = prepare(source._replace(rebase=rebase), target)
    if rebase:  # the archive has the name of what the link led to
        real = os.path.basename(path.rstrip("/"))
        rename = Rename(real, rename.new if rename else rebase)
    size = unpack(ByteBar("Copying").over(response), directory, rename)
    _say(call, size, target.path)
    return 0


def _into(call: Call, local: str, container: str, path: str) -> int:
    stat = _stat(call, container, path)
    led = link_target(path, stat) if stat else None
    if led is not None:
        path, stat = led, _stat(call, container, led)
    target = container_place(path, stat)
    owner = call.flags.on("archive")
    if local == "-":
        if not target.directory:
            raise InvalidArgument(f'destination "{container}:{path}" must be a directory')
        with os.fdopen(os.dup(0), "rb", buffering=0) as file:
            containers.put_archive(call.engine, container, path, file_body(file), copy_owner=owner)
        return 0
    from hafen.client.pack import pack

    source = local_source(local, follow=call.flags.on("follow-link"))
    directory, rename = prepare(source, target)
    bar = ByteBar("Copying")
    containers.put_archive(call.engine, container, directory, bar.over(pack(source, rename)), copy_owner=owner)
    _say(call, bar.seen, f"{container}:{path}")
    return 0


def _stat(call: Call, container: str, path: str) -> Document | None:
    """None where nothing is: a HEAD's 404 has no body to tell a missing path from a missing container."""
    try:
        return containers.path_stat(call.engine, container, path)
    except NotFound:
        containers.inspect(call.engine, container)
        return None


def _say(call: Call, size: int, where: str) -> None:
    if not call.flags.on("quiet") and terminal.is_terminal(2):
        err(f"Successfully copied {human_size(size, 3)} to {where}")


COPY = Command(
    _copy, "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\thafen cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem",
    """
-a, --archive       Archive mode (copy all uid/gid information)
-L, --follow-link   Always follow symbol link in SRC_PATH
-q, --quiet         Suppress progress output during copy. Progress output is automatically suppressed if no \
terminal is attached
""", least=2, most=2,
    description="Copy files/folders between a container and the local filesystem\n\n"
    "Use '-' as the source to read a tar archive from stdin\n"
    "and extract it to a directory destination in a container.\n"
    "Use '-' as the destination to stream a tar archive of a\n"
    "container source to stdout.",
)  # fmt: skip
