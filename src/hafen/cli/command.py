"""What a command is: its usage line, its flags, how many arguments it takes, and the function that runs it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from hafen.cli.flags import Flags, Validator
from hafen.client.engine import Engine

PROGRAM = "hafen"
MANY = 1 << 30

GLOBAL_FLAGS = """
    --config string      Location of client config files (default "~/.docker")
-c, --context string     Name of the context to use to connect to the engine (overrides DOCKER_HOST env var and \
default context)
-D, --debug              Enable debug mode
-H, --host string        Engine socket to connect to
-l, --log-level string   Set the logging level ("debug", "info", "warn", "error", "fatal") (default "info")
    --tls                Use TLS; implied by --tlsverify
    --tlscacert string   Trust certs signed only by this CA (default "~/.docker/ca.pem")
    --tlscert string     Path to TLS certificate file (default "~/.docker/cert.pem")
    --tlskey string      Path to TLS key file (default "~/.docker/key.pem")
    --tlsverify          Use TLS and verify the remote
-v, --version            Print version information and quit
"""


class Call(NamedTuple):
    """One run of a command."""

    path: str  # as typed: "ps", "container ls"
    flags: Flags
    arguments: list[str]
    engine: Engine
    settings: Mapping[str, object]  # Docker's config.json
    settings_path: str = ""  # where it is


class Command(NamedTuple):
    """`run` returns the exit code. `usage` follows the command's name in the usage line."""

    run: Callable[[Call], int]
    usage: str
    summary: str
    flags: str = ""
    least: int = 0
    most: int = MANY
    interspersed: bool = True
    aliases: Mapping[str, str] = {}
    validators: Mapping[str, Validator] = {}
    description: str = ""
