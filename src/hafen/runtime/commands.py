"""What each command of the OCI command line does; returns its exit code, raises HafenError."""

import json
import os
import posixpath
import select
import signal
import sys
import time
from typing import Any

from hafen.errors import Conflict, HafenError, InvalidArgument, NotFound, StartFailed, System
from hafen.kernel import process
from hafen.runtime import foreground, hooks, join, parent, resources, template
from hafen.runtime.argv import Arguments
from hafen.runtime.parent import Options, Stdio
from hafen.runtime.state import Record, Store, cgroup_of, oci_state, open_process
from hafen.spec import runtime_config
from hafen.spec.runtime_config import Capabilities, Config, Process, Resources, User

_STDIO = Stdio(0, 1, 2)
_KILL_MILLISECONDS = 10_000


def create(store: Store, arguments: Arguments) -> int:
    """The container's process waits on the fifo; its parent becomes whoever reaps our orphans."""
    container_id = _only_id(arguments)
    bundle, config = _bundle(arguments)
    process_ = _process_of(config)
    socket_path = arguments.value("console-socket")
    if process_.terminal and not socket_path:
        raise InvalidArgument("cannot allocate tty if runc will detach without setting console socket")
    if socket_path and not process_.terminal:
        raise InvalidArgument("cannot use console socket if runc will not detach or allocate tty")
    directory = store.claim(container_id)
    gate = report = -1
    try:
        with store.locked(container_id):
            os.mkfifo(f"{directory}/exec.fifo", 0o600)
            gate = os.open(f"{directory}/exec.fifo", os.O_RDWR | os.O_CLOEXEC)
            report = os.open(f"{directory}/failure", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            options = Options(
                dies_with_parent=False, gate=gate, report=report, preserved=_preserved(arguments),
                keyring=not arguments.on("no-new-keyring"),
            )  # fmt: skip
            created = parent.create(
                config, container_id=container_id, bundle=bundle, rootfs=(), stdio=_STDIO, options=options
            )
            try:
                _remember(store, created.pid, created.start_time, container_id, bundle, config)
                if created.console is not None:
                    foreground.send_console(socket_path, created.console)
                _write_pid(arguments, created.pid)
            except (HafenError, OSError):
                created.abort()
                raise
            _warn(created.warnings)
            created.release()
    except (HafenError, OSError):
        store.forget(container_id)
        raise
    finally:
        for fd in (gate, report):
            if fd >= 0:
                os.close(fd)
    return 0


def start(store: Store, arguments: Arguments) -> int:
    container_id = _only_id(arguments)
    with store.locked(container_id) as directory:
        record = store.load(container_id)
        status = store.status(record)
        if status == "stopped":
            raise Conflict("cannot start a container that has stopped")
        if status != "created":
            raise Conflict(f"cannot start an already {status} container")
        try:
            fifo = os.open(f"{directory}/exec.fifo", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # ENXIO: nobody reads
            raise Conflict("cannot start a container that has stopped") from None
        os.write(fifo, b"0")
        poll = select.poll()
        poll.register(fifo, 0)  # POLLERR comes unasked, once no reader is left: execve has closed the child's end
        poll.poll()
        os.close(fifo)
        os.unlink(f"{directory}/exec.fifo")
        with open(f"{directory}/failure", encoding="utf-8") as file:
            failure = file.read()
        if failure:
            raise StartFailed(failure)
        config = store.config(container_id)
        _warn(hooks.run_all("poststart", config.hooks.poststart, oci_state(store, record, config)))
    return 0


def state(store: Store, arguments: Arguments) -> int:
    record = store.load(_only_id(arguments))
    _print_json(oci_state(store, record, store.config(record.id)))
    return 0


def kill(store: Store, arguments: Arguments) -> int:
    if not 1 <= len(arguments.positional) <= 2:
        raise InvalidArgument("kill takes an ID and a signal")
    signo = signal_number(arguments.positional[1] if len(arguments.positional) == 2 else "SIGTERM")
    record = store.load(arguments.positional[0])
    pidfd = open_process(record)
    if arguments.on("all"):
        for pid in cgroup_of(record).pids():
            try:
                os.kill(pid, signo)
            except ProcessLookupError:
                pass
    elif pidfd is None:
        raise Conflict("container not running")
    else:
        process.pidfd_send_signal(pidfd, signo)
    if pidfd is not None:
        os.close(pidfd)
    return 0


def delete(store: Store, arguments: Arguments) -> int:
    container_id, force = _only_id(arguments), arguments.on("force")
    try:
        with store.locked(container_id):
            try:
                record = store.load(container_id)
            except NotFound:
                if not force:
                    raise
                store.forget(container_id)  # a `create` that was killed
                return 0
            status = store.status(record)
            if status not in ("stopped", "created") and not force:
                raise Conflict(f"cannot delete container {container_id} that is not stopped: {status}")
            config = store.config(container_id)
            cgroup = cgroup_of(record)
            cgroup.thaw()
            pidfd = open_process(record)
            if pidfd is not None:
                process.pidfd_send_signal(pidfd, signal.SIGKILL)
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                ended = poll.poll(_KILL_MILLISECONDS)
                os.close(pidfd)
                if not ended:  # pid_namespaces(7): it cannot end before others reap what they started inside
                    raise System("container init still running")
            cgroup.kill()
            cgroup.remove()
            stopped = {**oci_state(store, record, config), "status": "stopped", "pid": 0}
            _warn(hooks.run_all("poststop", config.hooks.poststop, stopped))
            store.forget(container_id)
    except NotFound:
        if not force:
            raise
    return 0


def run(store: Store, arguments: Arguments) -> int:
    """create, start, and unless detached wait and delete."""
    container_id = _only_id(arguments)
    bundle, config = _bundle(arguments)
    process_ = _process_of(config)
    detached, socket_path = arguments.on("detach"), arguments.value("console-socket")
    if detached and process_.terminal and not socket_path:
        raise InvalidArgument("cannot allocate tty if runc will detach without setting console socket")
    store.claim(container_id)
    options = Options(
        dies_with_parent=not detached, preserved=_preserved(arguments), keyring=not arguments.on("no-new-keyring"),
        trace=bool(os.environ.get("HAFEN_TRACE")),
    )  # fmt: skip
    try:
        running = parent.run(config, container_id=container_id, bundle=bundle, rootfs=(), stdio=_STDIO, options=options)
    except (HafenError, OSError):
        store.forget(container_id)
        raise
    _remember(store, running.pid, running.start_time, container_id, bundle, config)
    _warn(running.warnings)
    for what, at in running.trace:
        sys.stderr.write(f"{at:8} us  {what}\n")
    _write_pid(arguments, running.pid)
    if running.console is not None and socket_path:
        foreground.send_console(socket_path, running.console)
        os.close(running.console)
        running = running._replace(console=None)
    if detached:
        return 0
    code = foreground.wait(running)
    if not arguments.on("keep"):
        delete(store, Arguments({"force": ("true",)}, (container_id,)))
    return code


def execute(store: Store, arguments: Arguments) -> int:
    if not arguments.positional:
        raise InvalidArgument("exec takes an ID and a command")
    record = store.load(arguments.positional[0])
    status = store.status(record)
    if status == "stopped":
        raise Conflict("cannot exec in a stopped container")
    config = store.config(record.id)
    wanted = _exec_process(arguments, _process_of(config))
    socket_path = arguments.value("console-socket")
    if arguments.on("detach") and wanted.terminal and not socket_path:
        raise InvalidArgument("cannot allocate tty if runc will detach without setting console socket")
    running = join.execute(
        wanted, pid=record.pid, stdio=_STDIO, config=config, cgroup=cgroup_of(record), container_id=record.id,
        options=Options(dies_with_parent=not arguments.on("detach"), preserved=_preserved(arguments)),
    )  # fmt: skip
    _warn(running.warnings)
    _write_pid(arguments, running.pid)
    if running.console is not None and socket_path:
        foreground.send_console(socket_path, running.console)
        os.close(running.console)
        running = running._replace(console=None)
    return 0 if arguments.on("detach") else foreground.wait(running)


def _exec_process(arguments: Arguments, container: Process) -> Process:
    """From `--process FILE`, or the container's with what the options change."""
    path = arguments.value("process")
    if path:
        return runtime_config.decode(Process, _read_json(path), "process")
    if len(arguments.positional) < 2:
        raise InvalidArgument("process args cannot be empty")
    capabilities = container.capabilities
    extra = arguments.values("cap")
    if extra:
        base = capabilities or Capabilities()
        sets = (tuple(dict.fromkeys((*names, *extra))) for names in (base.bounding, base.effective, base.permitted))
        bounding, effective, permitted = sets
        capabilities = base._replace(bounding=bounding, effective=effective, permitted=permitted)
    user = container.user
    if arguments.value("user"):
        user = User(name=arguments.value("user"))
    gids = tuple(int(gid) for gid in arguments.values("additional-gids") if gid.isdecimal())
    return container._replace(
        args=arguments.positional[1:],
        terminal=arguments.on("tty"),
        cwd=arguments.value("cwd", container.cwd),
        env=(*container.env, *arguments.values("env")),
        user=user._replace(additional_gids=user.additional_gids + gids),
        capabilities=capabilities,
        no_new_privileges=container.no_new_privileges or arguments.on("no-new-privs"),
        apparmor_profile=arguments.value("apparmor", container.apparmor_profile),
        selinux_label=arguments.value("process-label", container.selinux_label),
    )


def list_containers(store: Store, arguments: Arguments) -> int:
    records = [store.load(container_id) for container_id in store.ids()]
    if arguments.on("quiet"):
        sys.stdout.write("".join(f"{record.id}\n" for record in records))
    elif arguments.value("format", "table") == "json":
        _print_json([oci_state(store, record, store.config(record.id)) for record in records])
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED")]
        for record in records:
            status = store.status(record)
            pid = "0" if status == "stopped" else str(record.pid)
            rows.append((record.id, pid, status, record.bundle, record.created))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            sys.stdout.write("  ".join(map(str.ljust, row, widths)).rstrip() + "\n")
    return 0


def ps(store: Store, arguments: Arguments) -> int:
    """Process ids; `--format json` is what containerd asks for."""
    pids = cgroup_of(store.load(_only_id(arguments))).pids()
    if arguments.value("format", "table") == "json":
        _print_json(pids)
    else:
        sys.stdout.write("PID\n" + "".join(f"{pid}\n" for pid in pids))
    return 0


def pause(store: Store, arguments: Arguments) -> int:
    record = store.load(_only_id(arguments))
    status = store.status(record)
    if status not in ("running", "created"):
        raise Conflict(f"container not running or created: {status}")
    cgroup_of(record).freeze()
    return 0


def resume(store: Store, arguments: Arguments) -> int:
    record = store.load(_only_id(arguments))
    if store.status(record) != "paused":
        raise Conflict("container not paused")
    cgroup_of(record).thaw()
    return 0


def update(store: Store, arguments: Arguments) -> int:
    record = store.load(_only_id(arguments))
    path = arguments.value("resources")
    if not path:
        raise InvalidArgument("update needs --resources FILE, or - for standard input")
    wanted = runtime_config.decode(Resources, _read_json(path), "resources")
    _warn(resources.impose(cgroup_of(record), wanted, parent.hierarchy().version, update=True))
    return 0


def features(store: Store, arguments: Arguments) -> int:
    _print_json(template.features())
    return 0


def spec(store: Store, arguments: Arguments) -> int:
    path = posixpath.join(arguments.value("bundle", "."), "config.json")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(json.dumps(template.config(), indent=4) + "\n")
    except FileExistsError:
        raise Conflict(f"file {path} exists. Remove it first") from None
    return 0


def signal_number(text: str) -> int:
    """ "9", "KILL" or "SIGKILL"."""
    if text.isdecimal() and int(text) <= signal.SIGRTMAX:
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    try:
        return signal.Signals[name].value
    except KeyError:
        raise InvalidArgument(f"unknown signal {text!r}") from None


def _only_id(arguments: Arguments) -> str:
    if len(arguments.positional) != 1:
        raise InvalidArgument("exactly one container ID is needed")
    return arguments.positional[0]


def _bundle(arguments: Arguments) -> tuple[str, Config]:
    bundle = os.path.realpath(arguments.value("bundle", "."))
    return bundle, runtime_config.from_json(_read_json(f"{bundle}/config.json"))


def _process_of(config: Config) -> Process:
    if config.process is None:
        raise InvalidArgument("process is missing")
    return config.process


def _read_json(path: str) -> Any:
    try:
        with open(0 if path == "-" else path, "rb") as file:
            return json.loads(file.read())
    except FileNotFoundError:
        raise NotFound(f"JSON specification file {path} not found") from None
    except ValueError as error:
        raise InvalidArgument(f"{path}: {error}") from None


def _preserved(arguments: Arguments) -> int:
    text = arguments.value("preserve-fds", "0")
    if not text.isdecimal():
        raise InvalidArgument(f"--preserve-fds: not a number: {text!r}")
    try:  # systemd's socket activation counts too: sd_listen_fds(3)
        listening = int(os.environ.get("LISTEN_FDS", "0")) if os.environ.get("LISTEN_PID") == str(os.getpid()) else 0
    except ValueError:
        raise System("LISTEN_FDS is not a number") from None
    return int(text) + listening


def _remember(store: Store, pid: int, start_time: int, container_id: str, bundle: str, config: Config) -> None:
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    rootfs = posixpath.join(bundle, config.root.path if config.root else "")
    cgroup = config.linux.cgroups_path or f"/hafen/{container_id}"
    version = config.oci_version
    store.save(Record(container_id, pid, start_time, bundle, rootfs, cgroup, created, version), config)


def _write_pid(arguments: Arguments, pid: int) -> None:
    """Whole or not at all: the reader may be waiting for the file."""
    path = arguments.value("pid-file")
    if path:
        with open(f"{path}.new", "w", encoding="ascii") as file:
            file.write(str(pid))
        os.replace(f"{path}.new", path)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _warn(warnings: "list[str] | tuple[str, ...]") -> None:
    for warning in warnings:
        sys.stderr.write(f"warning: {warning}\n")
