"""The closed set of errors that Hafen raises on purpose; every layer raises these, each face maps them once.

    HafenError
    ├── InvalidArgument      the request is wrong; retrying it unchanged cannot help
    ├── NotFound             the thing named does not exist
    ├── Conflict             the thing exists already, or its state forbids the operation
    ├── NotModified          it is already so: starting what runs, stopping what is stopped
    ├── Unauthorized         who asks is not known
    ├── Forbidden            who asks is known and may not
    ├── Unavailable          a part that is needed is away just now; trying later can help
    ├── NotImplemented       the feature is not there (yet); the message names it
    ├── OutOfSpace           the device or a set limit is full
    ├── Corrupt              stored or received data is not what its digest or format says
    ├── StartFailed          the container's process could not be started; carries the exit code clients expect
    └── System               the kernel or a tool refused; a defect of the host or of Hafen

The classes are those that Docker's clients can tell apart by HTTP status (moby `errdefs`), plus three of our own.
This module imports nothing: the lean processes load it.
"""

NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)


class HafenError(Exception):
    """Base of all errors raised on purpose. `str(error)` is a sentence for people; nobody parses it."""

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidArgument(HafenError):
    """The request is wrong; retrying it unchanged cannot help."""


class NotFound(HafenError):
    """The thing named does not exist."""


class Conflict(HafenError):
    """The thing exists already, or its state forbids the operation."""


class NotModified(HafenError):
    """It is already so."""


class Unauthorized(HafenError):
    """Who asks is not known."""


class Forbidden(HafenError):
    """Who asks is known and may not."""


class Unavailable(HafenError):
    """A part that is needed is away just now; trying later can help."""


class NotImplemented(HafenError):
    """The feature is not there; the message names it."""


class OutOfSpace(HafenError):
    """The device, or a limit that was set, is full."""


class Corrupt(HafenError):
    """Stored or received data is not what its digest or its format says."""


class StartFailed(HafenError):
    """The container's process could not be started.

    `exit_code` is what Docker reports: 127 where the command does not exist, 126 where it cannot be
    executed, 128 for everything else that the runtime refuses.
    """

    def __init__(self, message: str, exit_code: int = 128) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class System(HafenError):
    """The kernel or a tool refused."""


_BY_NAME: dict[str, type[HafenError]] = {
    cls.__name__: cls
    for cls in (
        InvalidArgument, NotFound, Conflict, NotModified, Unauthorized, Forbidden, Unavailable, NotImplemented,
        OutOfSpace, Corrupt, StartFailed, System,
    )
}  # fmt: skip


def to_wire(error: HafenError) -> dict[str, str | int]:
    """The error as a JSON-shaped value, for the conversations between our own processes."""
    wire: dict[str, str | int] = {"error": type(error).__name__, "message": error.message}
    if isinstance(error, StartFailed):
        wire["exit_code"] = error.exit_code
    return wire


def from_wire(wire: dict[str, str | int]) -> HafenError:
    """The inverse of `to_wire`; a class this version does not know becomes `System`."""
    message = str(wire.get("message", ""))
    cls = _BY_NAME.get(str(wire.get("error")), System)
    if cls is StartFailed:
        return StartFailed(message, int(wire.get("exit_code", 128)))
    return cls(message)
