"""Restart back-off and restart-policy decisions; pure arithmetic on seconds."""

from __future__ import annotations

BACK_OFF_FIRST = 0.1
BACK_OFF_LIMIT = 60.0
STEADY_AFTER = 10.0
"""A container that ran this long counts as up, and its next back-off starts from the beginning (Docker's rule)."""


def next_back_off(previous: float, ran_for: float) -> float:
    """Seconds to wait before the next start: 100 ms, doubling up to a minute, reset after 10 s of running."""
    if previous <= 0 or ran_for >= STEADY_AFTER:
        return BACK_OFF_FIRST
    return min(previous * 2, BACK_OFF_LIMIT)


def wants_restart(policy: str, maximum: int, exit_code: int, restarts: int, stopped_by_user: bool) -> bool:
    """Whether a container that just exited is to be started again.

    `policy` is Docker's name; `maximum` 0 is no limit and counts for `on-failure` only; `restarts` is how many
    there were since somebody last started it.
    """
    if stopped_by_user:
        return False
    match policy:
        case "always" | "unless-stopped":
            return True
        case "on-failure":
            return exit_code != 0 and (maximum == 0 or restarts < maximum)
    return False


def wants_start_at_boot(policy: str, stopped_by_user: bool) -> bool:
    """Whether a container that is not running is started when the engine comes up and it had not been before.

    `always` starts even what a user had stopped; `unless-stopped` and `on-failure` do not.
    """
    return policy == "always" or (policy == "unless-stopped" and not stopped_by_user)
