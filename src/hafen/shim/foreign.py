"""Another OCI runtime in the place of ours."""

from typing import Any

from hafen import errors
from hafen.runtime import parent
from hafen.runtime.child import Stdio
from hafen.shim.protocol import Exec, Spawn
from hafen.spec.runtime_config import RootMount


def create(spawn: Spawn, config: dict[str, Any], rootfs: tuple[RootMount, ...], stdio: Stdio) -> parent.Running:
    raise errors.NotImplemented(spawn.runtime)


def execute(spawn: Spawn, request: Exec, stdio: Stdio) -> parent.Running:
    raise errors.NotImplemented(spawn.runtime)


def delete(spawn: Spawn) -> None:
    pass
