"""Container states and the one transition table; nothing else may decide a transition.

    created ──start──► running ──pause──► paused
       │                │  ▲  ◄──unpause──  │
       │              exit │                │ exit
       │                ▼  │ start          │
       │             exited/restarting ◄────┘
       └──────remove──────► removing ──────► (gone)   removing ──fail──► dead

A start that fails leaves a container created or exited as it was. `restarting` is the pause between an exit and the
start that the restart policy asks for.
"""

from __future__ import annotations

from enum import StrEnum

from hafen.errors import Conflict, HafenError, NotModified, System


class State(StrEnum):
    """What a container is; the words of Docker's `State.Status`."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Action(StrEnum):
    """What can happen to a container."""

    START = "start"
    EXIT = "exit"
    AWAIT_RESTART = "await-restart"
    GIVE_UP = "give-up"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    REMOVE = "remove"
    REMOVE_FAILED = "remove-failed"


ALIVE = frozenset((State.RUNNING, State.PAUSED))
"""States in which the container's process exists."""

_TABLE: dict[tuple[State, Action], State] = {
    (State.CREATED, Action.START): State.RUNNING,
    (State.CREATED, Action.REMOVE): State.REMOVING,
    (State.RUNNING, Action.EXIT): State.EXITED,
    (State.RUNNING, Action.AWAIT_RESTART): State.RESTARTING,
    (State.RUNNING, Action.PAUSE): State.PAUSED,
    (State.PAUSED, Action.UNPAUSE): State.RUNNING,
    (State.PAUSED, Action.EXIT): State.EXITED,
    (State.PAUSED, Action.AWAIT_RESTART): State.RESTARTING,
    (State.RESTARTING, Action.START): State.RUNNING,
    (State.RESTARTING, Action.GIVE_UP): State.EXITED,
    (State.EXITED, Action.START): State.RUNNING,
    (State.EXITED, Action.AWAIT_RESTART): State.RESTARTING,
    (State.EXITED, Action.REMOVE): State.REMOVING,
    (State.DEAD, Action.REMOVE): State.REMOVING,
    (State.REMOVING, Action.REMOVE): State.REMOVING,
    (State.REMOVING, Action.REMOVE_FAILED): State.DEAD,
}


def next_state(state: State, action: Action, container_id: str, name: str) -> State:
    """The state after `action`; where the table has none, Docker's error for it. `name` is without its slash."""
    found = _TABLE.get((state, action))
    if found is None:
        raise refusal(state, action, container_id, name)
    return found


def refusal(state: State, action: Action, container_id: str, name: str) -> HafenError:
    """Docker's error for an action that the state does not allow."""
    match action, state:
        case Action.START, State.RUNNING:
            return NotModified(f"container {container_id} is already running")
        case Action.START, State.PAUSED:
            return Conflict("cannot start a paused container, try unpause instead")
        case Action.START, _:
            return Conflict("container is marked for removal and cannot be started")
        case Action.PAUSE, State.PAUSED:
            return Conflict(f"Container {container_id} is already paused")
        case Action.PAUSE, State.RESTARTING:
            return Conflict(f"Container {container_id} is restarting, wait until the container is running")
        case Action.PAUSE, _:
            return not_running(container_id)
        case Action.UNPAUSE, _:
            return System(f"Container {container_id} is not paused")  # 500 in Docker, and clients know it
        case Action.REMOVE, State.PAUSED:
            return Conflict(f'cannot remove container "/{name}": container is paused and must be unpaused first')
        case Action.REMOVE, State.RUNNING | State.RESTARTING:
            return Conflict(
                f'cannot remove container "/{name}": container is {state}: '
                "stop the container before removing or force remove"
            )
    return System(f"container {container_id}: {action} makes no sense while it is {state}")


def not_running(container_id: str) -> Conflict:
    """Docker's answer to whatever needs the container's process."""
    return Conflict(f"container {container_id} is not running")
