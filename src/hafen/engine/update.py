"""New limits and a new restart policy for a container that exists; pure but for `Updater`.

Docker takes the limits below and passes over all others of a request, which its client sends along empty.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from hafen.engine import hostconfig, specgen
from hafen.engine.events import Events
from hafen.engine.hostfacts import HostFacts
from hafen.engine.records import Containers
from hafen.engine.start import block_devices
from hafen.errors import Conflict, HafenError, System
from hafen.spec import runtime_config
from hafen.spec.lifecycle import State
from hafen.spec.runtime_config import Pids
from hafen.spec.wire.container import UpdateRequest, UpdateResponse
from hafen.spec.wire.hostconfig import HostConfig

_LIMITS = (
    "blkio_weight", "cpu_shares", "nano_cpus", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems", "memory",
    "memory_swap", "memory_reservation", "cpu_realtime_period", "cpu_realtime_runtime",
)  # fmt: skip
# What is to be set, what must not be set already, and Docker's words.
_CONFLICTS = (
    ("nano_cpus", "cpu_period", "Nano CPUs cannot be updated as CPU Period"),
    ("nano_cpus", "cpu_quota", "Nano CPUs cannot be updated as CPU Quota"),
    ("cpu_period", "nano_cpus", "CPU Period cannot be updated as NanoCPUs"),
    ("cpu_quota", "nano_cpus", "CPU Quota cannot be updated as NanoCPUs"),
)


@dataclass(frozen=True, slots=True)
class Updater:
    """Carries an update out: in the running container first, then in its record."""

    containers: Containers
    events: Events
    host: HostFacts

    async def update(self, ref: str, request: UpdateRequest) -> UpdateResponse:
        container = self.containers.find(ref)
        hostconfig.check_resources(request, self.host, update=True)
        if request.restart_policy.name:
            hostconfig.check_restart_policy(request.restart_policy, False)
        warnings: list[str] = []
        async with container.lock:
            try:
                if container.status.state in (State.REMOVING, State.DEAD):
                    raise Conflict('Container is marked for removal and cannot be "update".')
                wanted = merge(container.record.host_config, request)
                if container.alive:
                    warnings = await container.running_shim().update(runtime_config.to_json(live_limits(wanted)))
                self.containers.replace(container, replace(container.record, host_config=wanted))
            except HafenError as error:
                kind = Conflict if isinstance(error, Conflict) else System
                raise kind(f"Cannot update container {container.id}: {error.message}") from error
        self.events.publish("container", "update", container.id, container.event_attributes())
        return UpdateResponse(warnings=warnings or None)


def merge(old: HostConfig, new: UpdateRequest) -> HostConfig:
    """The old configuration with what the new one sets; Conflict where that does not fit what is set already."""
    for field, other, text in _CONFLICTS:
        if getattr(new, field) > 0 and getattr(old, other) > 0:
            raise Conflict(f"Conflicting options: {text} has already been set")
    if new.memory and new.memory_swap == 0 and new.memory > old.memory_swap:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    changed = {name: value for name in _LIMITS if (value := getattr(new, name))}
    if new.pids_limit is not None:
        changed["pids_limit"] = new.pids_limit
    if new.restart_policy.name:
        if old.auto_remove and new.restart_policy.name != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        changed["restart_policy"] = new.restart_policy
    return replace(old, **changed)


def live_limits(wanted: HostConfig) -> runtime_config.Resources:
    """What a running container's cgroup is to have; unlike at the start, "no limit" has to be said."""
    limits = specgen.resources(wanted, specgen.Found("", "", device_numbers=block_devices(wanted)))
    pids = limits.pids if wanted.pids_limit is None or wanted.pids_limit > 0 else Pids(-1)
    return limits._replace(devices=(), pids=pids)
