"""`run` and `create`."""

import json
import os

from hafen.cli import terminal
from hafen.cli.command import PROGRAM, Call, Command
from hafen.cli.hints import absent_image
from hafen.cli.output import err, out
from hafen.cli.report import report, system_text
from hafen.cli.runflags import ALIASES, RUN_ONLY, SHARED, VALIDATORS
from hafen.cli.runspec import check_supported, request
from hafen.cli.session import Streams, carry, check_terminal, detach_keys, signalling
from hafen.client import containers
from hafen.client.engine import Document, Query
from hafen.client.transport import Response
from hafen.errors import HafenError, InvalidArgument, NotFound, System, Unavailable

NOT_STARTED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127
REMOVAL_SECONDS = 10.0


def create(call: Call) -> int:
    check_supported(call.flags)
    try:
        body = request(call.flags, call.arguments[0], call.arguments[1:], os.environ)
    except (HafenError, OSError) as error:
        _failed(call, error)
        return NOT_STARTED
    body["HostConfig"]["ConsoleSize"] = list(terminal.size())
    out(_create(call, body))
    return 0


def run(call: Call) -> int:
    check_supported(call.flags)
    try:
        body = request(call.flags, call.arguments[0], call.arguments[1:], os.environ)
    except (HafenError, OSError) as error:
        _failed(call, error)
        return NOT_STARTED
    if call.flags.on("detach"):
        if call.flags.values("attach"):
            raise InvalidArgument("conflicting options: cannot specify both --attach and --detach")
        body.update(AttachStdin=False, AttachStdout=False, AttachStderr=False, StdinOnce=False)
    streams = Streams(body["AttachStdin"], body["AttachStdout"], body["AttachStderr"], body["Tty"])
    check_terminal(streams)
    body["HostConfig"]["ConsoleSize"] = list(terminal.size())
    try:
        identifier = _create(call, body)
    except (HafenError, OSError) as error:
        return _failed(call, error)
    if not (streams.stdin or streams.stdout or streams.stderr):
        try:
            containers.start(call.engine, identifier)
        except HafenError as error:
            return _failed(call, error)
        out(identifier)
        return 0
    return _attached(call, identifier, streams)


def _attached(call: Call, identifier: str, streams: Streams) -> int:
    """Attach and wait are there before the container runs, so that neither output nor exit status is lost."""
    keys = detach_keys(call.flags.text("detach-keys"), call.settings)
    query: Query = {
        "stream": True,
        "stdin": streams.stdin,
        "stdout": streams.stdout,
        "stderr": streams.stderr,
        "detachKeys": keys,
    }
    waiting: list[Response] = []
    started = False

    def begin() -> None:
        nonlocal started
        waiting.append(containers.wait(call.engine, identifier, "removed" if call.flags.on("rm") else "next-exit"))
        containers.start(call.engine, identifier)
        started = True

    try:
        with signalling(call.engine) as signals:
            detached = carry(
                containers.attach(call.engine, identifier, query), streams, keys=keys, begin=begin,
                resize=lambda height, width: containers.resize(signals, identifier, height, width),
                forward=(lambda name: containers.act(signals, identifier, "kill", {"signal": name}))
                if call.flags.on("sig-proxy", True) else None,
            )  # fmt: skip
    except HafenError as error:
        if not started and waiting and call.flags.on("rm"):
            waiting[0].comes_within(REMOVAL_SECONDS)  # the container is gone when we say that it did not start
        return _failed(call, error)
    return 0 if detached else exit_status(waiting[0])


def exit_status(waiting: Response) -> int:
    answer = json.loads(waiting.read())
    problem = (answer.get("Error") or {}).get("Message")
    if problem:
        raise Unavailable(f"Error waiting for container: {problem}")
    return int(answer["StatusCode"])


def _create(call: Call, body: Document) -> str:
    """The id; gets the image first where that is wanted."""
    flags, image = call.flags, call.arguments[0]
    policy = flags.text("pull", "missing")
    cidfile = flags.text("cidfile")
    if cidfile and os.path.exists(cidfile):
        raise InvalidArgument(
            f"container ID file found, make sure the other container isn't running or delete {cidfile}"
        )
    if policy == "always":
        _pull(call, image)
    name, platform = flags.text("name"), _platform(flags.text("platform"))
    try:
        answer = containers.create(call.engine, body, name, platform)
    except NotFound as error:
        if policy == "never" or "No such image" not in error.message:
            raise
        if not flags.on("quiet"):
            err(f"Unable to find image '{_with_tag(image)}' locally")
        _pull(call, image)
        answer = containers.create(call.engine, body, name, platform)
    for warning in answer.get("Warnings") or []:
        err(f"WARNING: {warning}")
    if cidfile:
        with open(cidfile, "x", encoding="ascii") as file:
            file.write(answer["Id"])
    return str(answer["Id"])


def _platform(text: str) -> str:
    """As docker sends it: a system alone is meant with this machine's architecture."""
    if text.count("/") > 2:
        raise InvalidArgument(
            f'error parsing specified platform: "{text}": cannot parse platform specifier: invalid argument'
        )
    return "linux/amd64" if text == "linux" and os.uname().machine == "x86_64" else text


def _pull(call: Call, image: str) -> None:
    from hafen.cli.commands.registry import pull_image

    try:
        pull_image(call, image, platform=call.flags.text("platform"), quiet=call.flags.on("quiet"), to_stderr=True)
    except (NotFound, System) as error:
        raise type(error)(f"{error.message}\n{absent_image(image)}") from None


def _with_tag(image: str) -> str:
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


def _failed(call: Call, error: HafenError | OSError) -> int:
    """Docker's exit codes tell a command that is not there (127) and one that cannot run (126) from all else (125)."""
    if isinstance(error, HafenError):
        report(error, f"{PROGRAM}: ")
        text = error.message
    else:
        text = system_text(error)
        err(f"{PROGRAM}: {text}")
    err(f"\nRun '{PROGRAM} {call.path} --help' for more information")
    return start_failure(text)


def start_failure(text: str) -> int:
    """The engine's HTTP answer carries no exit code: docker, too, reads the runtime's words."""
    if "executable file not found" in text or "no such file or directory" in text:
        return NOT_FOUND
    if "unable to start container process" in text and ("permission denied" in text or "is a directory" in text):
        return NOT_EXECUTABLE
    return NOT_STARTED


RUN = Command(
    run, "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image",
    flags=SHARED + RUN_ONLY, least=1, interspersed=False, aliases=ALIASES, validators=VALIDATORS,
)  # fmt: skip
CREATE = Command(
    create, "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container",
    flags=SHARED, least=1, interspersed=False, aliases=ALIASES, validators=VALIDATORS,
)  # fmt: skip
