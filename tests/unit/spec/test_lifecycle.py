"""The transition table, and what is said where it has none."""

import pytest

from hafen.errors import Conflict, HafenError, NotModified, System
from hafen.spec.lifecycle import Action, State, next_state

ID = "f" * 64


@pytest.mark.parametrize(
    ("state", "action", "expected"),
    [
        (State.CREATED, Action.START, State.RUNNING),
        (State.RUNNING, Action.PAUSE, State.PAUSED),
        (State.PAUSED, Action.UNPAUSE, State.RUNNING),
        (State.PAUSED, Action.EXIT, State.EXITED),
        (State.RUNNING, Action.AWAIT_RESTART, State.RESTARTING),
        (State.RESTARTING, Action.START, State.RUNNING),
        (State.RESTARTING, Action.GIVE_UP, State.EXITED),
        (State.EXITED, Action.START, State.RUNNING),
        (State.EXITED, Action.REMOVE, State.REMOVING),
        (State.REMOVING, Action.REMOVE_FAILED, State.DEAD),
    ],
)
def test_allowed(state: State, action: Action, expected: State) -> None:
    assert next_state(state, action, ID, "x") is expected


@pytest.mark.parametrize(
    ("state", "action", "cls", "text"),
    [
        (State.RUNNING, Action.START, NotModified, "already running"),
        (State.PAUSED, Action.START, Conflict, "cannot start a paused container, try unpause instead"),
        (State.REMOVING, Action.START, Conflict, "marked for removal"),
        (State.PAUSED, Action.PAUSE, Conflict, f"Container {ID} is already paused"),
        (State.CREATED, Action.PAUSE, Conflict, f"container {ID} is not running"),
        (State.RUNNING, Action.UNPAUSE, System, f"Container {ID} is not paused"),
        (
            State.PAUSED,
            Action.REMOVE,
            Conflict,
            'remove container "/x": container is paused and must be unpaused first',
        ),
        (State.RUNNING, Action.REMOVE, Conflict, "container is running: stop the container before removing"),
        (State.RESTARTING, Action.REMOVE, Conflict, "container is restarting: stop the container before removing"),
    ],
)
def test_refused(state: State, action: Action, cls: type[HafenError], text: str) -> None:
    with pytest.raises(cls) as caught:
        next_state(state, action, ID, "x")
    assert text in caught.value.message


def answer(state: State, action: Action) -> State | str:
    try:
        return next_state(state, action, ID, "x")
    except HafenError as error:
        return error.message


def test_every_pair_gives_a_state_or_one_of_our_errors() -> None:
    for state in State:
        for action in Action:
            assert answer(state, action), (state, action)
