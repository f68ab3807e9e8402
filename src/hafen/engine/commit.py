"""Commit: an image of a container's changes, with its configuration."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from hafen.engine.events import Events
from hafen.engine.imageimport import CommitRequest
from hafen.engine.images import Images
from hafen.engine.pausing import Pauser
from hafen.engine.records import Containers
from hafen.errors import Conflict
from hafen.spec import reference
from hafen.spec.lifecycle import State
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.image import IdResponse, ImageConfig


@dataclass(frozen=True, slots=True)
class Committer:
    """`Services.commit`."""

    containers: Containers
    images: Images
    events: Events
    pauser: Pauser

    async def commit(
        self,
        ref: str,
        repo: str | None = None,
        tag: str | None = None,
        comment: str = "",
        author: str = "",
        pause: bool = True,
        changes: tuple[str, ...] = (),
        config: ContainerConfig | None = None,
    ) -> IdResponse:
        container = self.containers.find(ref)
        if container.status.state in (State.REMOVING, State.DEAD):
            raise Conflict(f"You cannot commit container {container.id} which is {container.status.state}")
        record = container.record
        paused = pause and await self.pauser.pause(container)
        try:
            identity = await self.images.commit(
                CommitRequest(
                    key=container.id,
                    parent=self.images.resolve(record.image_id),
                    config=as_image_config(merged(record.config, config)),
                    repo=repo or "",
                    tag=tag or "",
                    comment=comment,
                    author=author,
                    created_by=" ".join((record.path, *record.args)),
                    changes=changes,
                )
            )
        finally:
            if paused:
                await self.pauser.resume(container)
        name = reference.parse_repository(repo, tag or "").familiar if repo else ""
        attributes = container.event_attributes(comment=comment, imageID=identity, imageRef=name)
        self.events.publish("container", "commit", container.id, attributes)
        return IdResponse(id=identity)


def merged(own: ContainerConfig, given: ContainerConfig | None) -> ContainerConfig:
    """The container's configuration with what the client sent in its place (moby `merge`: the client's wins); maps and
    environment are united."""
    if given is None or given == ContainerConfig():
        return own
    default = ContainerConfig()
    changed = {
        field: getattr(given, field)
        for field in ContainerConfig.__struct_fields__
        if getattr(given, field) != getattr(default, field)
    }
    for field in ("labels", "volumes", "exposed_ports"):
        if field in changed:
            changed[field] = {**(getattr(own, field) or {}), **changed[field]}
    if given.env:
        named = {entry.partition("=")[0] for entry in given.env}
        changed["env"] = [*given.env, *(entry for entry in own.env or () if entry.partition("=")[0] not in named)]
    return msgspec.structs.replace(own, **changed)


def as_image_config(config: ContainerConfig) -> ImageConfig:
    """What an image says of containers; hostname, streams and the like stay behind."""
    return ImageConfig(
        user=config.user,
        exposed_ports=config.exposed_ports,
        env=config.env or [],
        entrypoint=config.entrypoint or [],
        cmd=config.cmd or [],
        volumes=config.volumes or {},
        working_dir=config.working_dir,
        labels=config.labels,
        stop_signal=config.stop_signal,
        healthcheck=config.healthcheck,
        on_build=config.on_build or [],
        shell=config.shell,
    )
