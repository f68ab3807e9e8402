"""What the faces can ask of the engine: one protocol per service, one verb per method; holds no logic.

`ref` is always a container's id, an unambiguous prefix of it, or its name. Durations are seconds. Errors are those of
`hafen.errors`, with Docker's texts. Everything runs on the engine's one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hafen.engine.volumerecords import PLAIN_REMOVAL, Removal
from hafen.spec.filters import NO_FILTERS, Filters

if TYPE_CHECKING:
    import socket

    from hafen.engine.fsck import Fsck
    from hafen.engine.images import Images
    from hafen.engine.logs import Logs
    from hafen.engine.networks import Networks
    from hafen.spec.platform import Platform
    from hafen.spec.wire import container as wire
    from hafen.spec.wire import event, exec, image, system, volume


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """What a client wants of a container's streams. `detach_keys` None means Docker's `ctrl-p,ctrl-q`.

    `multiplexed` is whether output without a terminal comes in frames that name its stream (`spec.stdcopy`).
    """

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    stream: bool = True
    logs: bool = False
    detach_keys: str | None = None
    multiplexed: bool = True


@dataclass(frozen=True, slots=True)
class ExecStartOptions:
    """How a client starts an exec: `console_size` is (height, width) in characters."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None


class Session(Protocol):
    """An attached client. `tty` tells raw streams from multiplexed ones, for the answer's content type."""

    @property
    def tty(self) -> bool: ...

    async def run(self, sock: socket.socket, prefix: bytes = b"") -> None:
        """Take over the client's socket (ownership passes; `prefix` is what was already read from it).

        Called after the head of the answer was sent. Returns when the session is over. A container that is not
        started yet keeps the client until it is.
        """

    def abandon(self) -> None:
        """The client went away before `run`: forget the session."""


class CreateService(Protocol):
    async def create(
        self, name: str | None, request: wire.CreateRequest, platform: str | None = None
    ) -> wire.CreateResponse: ...


class StartService(Protocol):
    async def start(self, ref: str, detach_keys: str | None = None) -> None:
        """NotModified where it runs already."""


class StopService(Protocol):
    async def stop(self, ref: str, signal: str | None = None, timeout: int | None = None) -> None:
        """NotModified where it does not run. `timeout` -1 waits for ever; None takes the container's own."""

    async def kill(self, ref: str, signal: str | None = None) -> None: ...

    async def restart(self, ref: str, signal: str | None = None, timeout: int | None = None) -> None: ...

    async def pause(self, ref: str) -> None: ...

    async def unpause(self, ref: str) -> None: ...

    async def wait(self, ref: str, condition: str | None = None) -> asyncio.Future[wire.WaitResponse]:
        """The wait is registered when this returns, so that a face can send its head before awaiting the future.

        `condition` is `not-running` (default), `next-exit` or `removed`. A client that goes away cancels the future.
        """


class RemoveService(Protocol):
    async def remove(self, ref: str, volumes: bool = False, force: bool = False, link: bool = False) -> None: ...

    async def prune(self, filters: Filters = NO_FILTERS) -> wire.PruneResponse: ...


class ListingService(Protocol):
    async def list(
        self, all: bool = False, limit: int | None = None, size: bool = False, filters: Filters = NO_FILTERS
    ) -> Sequence[wire.ContainerSummary]: ...


class InspectService(Protocol):
    async def inspect(self, ref: str, size: bool = False) -> wire.ContainerInspect: ...

    async def changes(self, ref: str) -> list[wire.FilesystemChange]: ...

    async def top(self, ref: str, ps_args: str | None = None) -> wire.TopResponse: ...

    async def rename(self, ref: str, name: str) -> None: ...


class UpdateService(Protocol):
    async def update(self, ref: str, request: wire.UpdateRequest) -> wire.UpdateResponse: ...


class StatsService(Protocol):
    async def stats(self, ref: str, stream: bool = True, one_shot: bool = False) -> AsyncIterator[wire.StatsResponse]:
        """The container is looked up when this returns; the samples come by iterating."""


class AttachService(Protocol):
    async def attach(self, ref: str, options: AttachOptions) -> Session: ...

    async def resize(self, ref: str, height: int, width: int) -> None: ...


class ExecService(Protocol):
    async def create(self, ref: str, config: exec.ExecConfig) -> str:
        """The new exec's id."""

    async def start(self, exec_id: str, options: ExecStartOptions) -> Session | None:
        """None where it was started detached; else the session whose `run` starts the process and streams."""

    async def resize(self, exec_id: str, height: int, width: int) -> None: ...

    async def inspect(self, exec_id: str) -> exec.ExecInspect: ...


class CopyService(Protocol):
    async def stat(self, ref: str, path: str) -> wire.PathStat: ...

    async def get(self, ref: str, path: str) -> tuple[wire.PathStat, AsyncIterator[bytes]]:
        """A tar archive of the path."""

    async def put(
        self,
        ref: str,
        path: str,
        archive: AsyncIterator[bytes],
        no_overwrite_dir_non_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        """Unpack a tar archive (plain or compressed) into the directory `path`."""

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """A tar archive of the whole root. NotFound is raised before the first byte."""


class CommitService(Protocol):
    async def commit(
        self,
        ref: str,
        repo: str | None = None,
        tag: str | None = None,
        comment: str = "",
        author: str = "",
        pause: bool = True,
        changes: tuple[str, ...] = (),
        config: wire.ContainerConfig | None = None,
    ) -> image.IdResponse: ...


class EventsService(Protocol):
    def subscribe(
        self, since: str | None = None, until: str | None = None, filters: Filters = NO_FILTERS
    ) -> AsyncIterator[list[event.Event]]:
        """Replays what is kept since `since` and ends at `until` (seconds since 1970, with a fraction).

        Each item is what came since the last. Registered when this returns; `aclose()` ends it.
        """


class SystemService(Protocol):
    async def info(self) -> system.SystemInfo: ...

    async def version(self) -> system.SystemVersion: ...

    async def df(self, types: tuple[str, ...] = ()) -> system.DiskUsage: ...


class RegistryService(Protocol):
    """Registries. `auth` is what the client sent along; all empty is anonymous."""

    async def login(self, auth: system.AuthConfig) -> system.AuthResponse:
        """Whether a registry takes these credentials: Unauthorized where not."""

    def pull(self, name: str, tag: str, platform: str, auth: system.AuthConfig) -> AsyncIterator[image.Progress]:
        """An image by tag or digest, or with an empty `tag` all of a repository. What is wrong before the first
        message is known before it."""

    def push(
        self,
        name: str,
        tag: str,
        auth: system.AuthConfig,
        platform: Platform | None = None,
        referrers: bool = False,
    ) -> AsyncIterator[image.Progress]:
        """A tag, or with an empty `tag` all that the repository has here."""

    async def inspect(self, name: str, auth: system.AuthConfig) -> system.DistributionInspect:
        """What a name stands for in its registry."""

    async def search(
        self, term: str, limit: int | None, filters: Filters, auth: system.AuthConfig
    ) -> list[image.SearchResult]: ...


class VolumesService(Protocol):
    async def list(self, filters: Filters = NO_FILTERS) -> volume.VolumeListResponse: ...

    async def inspect(self, name: str) -> volume.Volume: ...

    async def create(self, request: volume.VolumeCreateRequest) -> volume.Volume: ...

    async def remove(self, name: str, how: Removal = PLAIN_REMOVAL) -> None: ...

    async def prune(
        self, filters: Filters = NO_FILTERS, how: Removal = PLAIN_REMOVAL
    ) -> volume.VolumePruneResponse: ...


class VolumeCopiesService(Protocol):
    """Ours alone. `live`: writing containers are not paused meanwhile."""

    async def export(self, name: str, live: bool = False) -> AsyncIterator[bytes]:
        """A tar archive of the volume."""

    async def import_(
        self, name: str, archive: AsyncIterator[bytes], labels: dict[str, str] | None = None
    ) -> volume.Volume: ...

    async def clone(
        self, name: str, target: str, snapshot: str = "", live: bool = False, labels: dict[str, str] | None = None
    ) -> volume.Volume: ...

    async def snapshots(self, name: str) -> list[volume.VolumeSnapshot]: ...

    async def snapshot(self, name: str, snapshot: str = "", live: bool = False) -> volume.VolumeSnapshot: ...

    async def remove_snapshot(self, name: str, snapshot: str) -> None: ...

    async def restore(self, name: str, snapshot: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Services:
    """Every service of one engine, wired by `daemon.wire`."""

    create: CreateService
    start: StartService
    stop: StopService
    remove: RemoveService
    listing: ListingService
    inspect: InspectService
    update: UpdateService
    stats: StatsService
    attach: AttachService
    exec: ExecService
    copy: CopyService
    commit: CommitService
    events: EventsService
    system: SystemService
    registry: RegistryService
    volumes: VolumesService
    volume_copies: VolumeCopiesService
    networks: Networks
    images: Images
    logs: Logs
    fsck: Fsck
