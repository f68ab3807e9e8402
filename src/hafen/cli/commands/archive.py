"""`load` and `save`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from hafen.cli import terminal
from hafen.cli.command import Call, Command
from hafen.cli.commands.inside import write_response
from hafen.cli.progress import ByteBar, Progress
from hafen.client import images
from hafen.client.transport import file_body
from hafen.errors import InvalidArgument


@contextmanager
def input_file(path: str) -> Iterator[tuple[BinaryIO, int]]:
    """A file, or standard input, unbuffered, with its size where it has one."""
    if path in ("", "-"):
        with os.fdopen(os.dup(0), "rb", buffering=0) as file:
            yield file, _size(file)
        return
    with open(path, "rb", buffering=0) as file:
        yield file, _size(file)


def _size(file: object) -> int:
    assert hasattr(file, "fileno")
    return os.fstat(file.fileno()).st_size


def _load(call: Call) -> int:
    source = call.flags.text("input")
    if not source and terminal.is_terminal(0):
        raise InvalidArgument("requested load from stdin, but stdin is empty")
    quiet = call.flags.on("quiet") or not sys.stdout.isatty()
    with input_file(source) as (file, size):
        bar = ByteBar("Sending", size)
        platform = call.flags.text("platform")
        response = images.load(call.engine, bar.over(file_body(file)), quiet=quiet, platform=platform)
        Progress().show(call.engine.documents(response))
    return 0


def _save(call: Call) -> int:
    target = call.flags.text("output")
    if not target and terminal.is_terminal(1):
        raise InvalidArgument("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    if target and not os.path.isdir(os.path.dirname(os.path.abspath(target))):
        place = os.path.dirname(target)
        raise InvalidArgument(f"failed to save image: invalid output path: stat {place}: no such file or directory")
    if os.path.isdir(target):
        raise InvalidArgument("failed to save image: cannot write to a directory")
    archive = images.save(call.engine, call.arguments, platform=call.flags.text("platform"))
    write_response(archive, target, ByteBar("Saving"))
    return 0


LOAD = Command(
    _load, "[OPTIONS]", "Load an image from a tar archive or STDIN",
    """
-i, --input string      Read from tar archive file, instead of STDIN
    --platform string   Load only the given platform variant, such as linux/amd64
-q, --quiet             Suppress the load output
""", most=0,
)  # fmt: skip
SAVE = Command(
    _save, "[OPTIONS] IMAGE [IMAGE...]", "Save one or more images to a tar archive (streamed to STDOUT by default)",
    """
-o, --output string     Write to a file, instead of STDOUT
    --platform string   Save only the given platform variant, such as linux/amd64
""", least=1,
)  # fmt: skip
