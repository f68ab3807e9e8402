"""Engine API JSON shapes for exec (API 1.55)."""

from __future__ import annotations

from hafen.spec.wire.gojson import UInt32, Wire, null, shown


class ExecConfig(Wire, frozen=True):
    """POST /containers/{id}/exec. `console_size` is height, width."""

    user: str = shown(str)
    privileged: bool = shown(bool)
    tty: bool = shown(bool)
    console_size: list[UInt32] | None = None
    attach_stdin: bool = shown(bool)
    attach_stderr: bool = shown(bool)
    attach_stdout: bool = shown(bool)
    detach_keys: str = shown(str)
    env: list[str] | None = shown(null)
    working_dir: str = shown(str)
    cmd: list[str] | None = shown(null)


class ExecStartConfig(Wire, frozen=True):
    """POST /exec/{id}/start."""

    detach: bool = shown(bool)
    tty: bool = shown(bool)
    console_size: list[UInt32] | None = None


class ProcessConfig(Wire, frozen=True, rename=None):
    tty: bool = shown(bool)
    entrypoint: str = shown(str)
    arguments: list[str] = shown(list[str])
    privileged: bool | None = None
    user: str = ""


class ExecInspect(Wire, frozen=True):
    """GET /exec/{id}/json. `exit_code` is None until it has ended."""

    id: str = shown(str, "ID")
    running: bool = shown(bool)
    exit_code: int | None = shown(null)
    process_config: ProcessConfig = shown(ProcessConfig)
    open_stdin: bool = shown(bool)
    open_stderr: bool = shown(bool)
    open_stdout: bool = shown(bool)
    can_remove: bool = shown(bool)
    container_id: str = shown(str, "ContainerID")
    detach_keys: str = shown(str)  # base64 of the key bytes, as Go writes a []byte
    pid: int = shown(int)
