"""`attach`, and `start`, which may attach."""

from hafen.cli.command import Call, Command
from hafen.cli.commands.run import exit_status
from hafen.cli.output import err, out
from hafen.cli.report import report
from hafen.cli.session import Streams, carry, check_terminal, detach_keys, signalling
from hafen.client import containers
from hafen.client.engine import Document, Query
from hafen.client.transport import Response
from hafen.errors import Conflict, HafenError, InvalidArgument, NotModified


def _attach(call: Call) -> int:
    reference = call.arguments[0]
    document = containers.inspect(call.engine, reference)
    state = document["State"]
    if not state["Running"]:
        raise Conflict("You cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise Conflict("You cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise Conflict("You cannot attach to a restarting container, wait until it is running")
    config = document["Config"]
    streams = Streams(bool(config["OpenStdin"]) and not call.flags.on("no-stdin"), True, True, bool(config["Tty"]))
    check_terminal(streams)
    waiting = containers.wait(call.engine, document["Id"])
    if _carry(call, document, streams, sig_proxy=call.flags.on("sig-proxy", True)):
        err("read escape sequence")
        return 1
    return exit_status(waiting)


def _carry(
    call: Call, document: Document, streams: Streams, *, sig_proxy: bool, start: list[Response] | None = None
) -> bool:
    """With `start` the container is started once we are attached, and the wait for its end is put there."""
    identifier = document["Id"]
    keys = detach_keys(call.flags.text("detach-keys"), call.settings)
    query: Query = {
        "stream": True, "stdin": streams.stdin, "stdout": streams.stdout, "stderr": streams.stderr, "detachKeys": keys,
    }  # fmt: skip

    def begin() -> None:
        if start is not None:
            removed = document["HostConfig"].get("AutoRemove")
            start.append(containers.wait(call.engine, identifier, "removed" if removed else "next-exit"))
            containers.start(call.engine, identifier)

    with signalling(call.engine) as signals:
        return carry(
            containers.attach(call.engine, identifier, query), streams, keys=keys, begin=begin,
            resize=lambda height, width: containers.resize(signals, identifier, height, width),
            forward=(lambda name: containers.act(signals, identifier, "kill", {"signal": name})) if sig_proxy else None,
        )  # fmt: skip


def _start(call: Call) -> int:
    flags = call.flags
    checkpoint = [f'"--{name}"' for name in ("checkpoint", "checkpoint-dir") if flags.changed(name)]
    if checkpoint:
        told = "is only supported on a Docker daemon with experimental features enabled"
        raise InvalidArgument("\n".join(f"{flag} {told}" for flag in checkpoint))
    if flags.on("attach") or flags.on("interactive"):
        if len(call.arguments) > 1:
            raise InvalidArgument("you cannot start and attach multiple containers at once")
        return _start_attached(call)
    failed = []
    for reference in call.arguments:
        try:
            containers.start(call.engine, reference)
        except NotModified:
            out(reference)
        except HafenError as error:
            report(error)
            failed.append(reference)
        else:
            out(reference)
    if failed:
        err(f"Error: failed to start containers: {', '.join(failed)}")
    return 1 if failed else 0


def _start_attached(call: Call) -> int:
    document = containers.inspect(call.engine, call.arguments[0])
    config = document["Config"]
    stdin = call.flags.on("interactive") and bool(config["OpenStdin"])
    streams = Streams(stdin, True, True, bool(config["Tty"]))
    waiting: list[Response] = []
    detached = _carry(call, document, streams, sig_proxy=call.flags.on("sig-proxy", True), start=waiting)
    return 0 if detached else exit_status(waiting[0])


ATTACH = Command(
    _attach, "[OPTIONS] CONTAINER", "Attach local standard input, output, and error streams to a running container",
    """
    --detach-keys string   Override the key sequence for detaching a container
    --no-stdin             Do not attach STDIN
    --sig-proxy            Proxy all received signals to the process (default true)
""", least=1, most=1,
)  # fmt: skip
START = Command(
    _start, "[OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers",
    """
-a, --attach                  Attach STDOUT/STDERR and forward signals
    --checkpoint string       Restore from this checkpoint
    --checkpoint-dir string   Use a custom checkpoint storage directory
    --detach-keys string      Override the key sequence for detaching a container
-i, --interactive          Attach container's STDIN
    --sig-proxy            (hidden)
""", least=1,
)  # fmt: skip
