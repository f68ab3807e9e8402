"""When containers are started again, and when and how their health is judged; pure arithmetic on seconds."""

from __future__ import annotations

from dataclasses import dataclass

from hafen.spec.wire.image import HealthConfig

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


@dataclass(frozen=True, slots=True)
class HealthTimes:
    """How a health check is timed, in seconds; what a configuration leaves at zero has these values of Docker's.

    `interval` counts from the end of a probe to the begin of the next. Within `start_period` after the start failures
    do not count, and a container that was never healthy is probed every `start_interval`.
    """

    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3


def health_times(config: HealthConfig) -> HealthTimes:
    given = {
        name: getattr(config, name) / 1e9
        for name in ("interval", "timeout", "start_period", "start_interval")
        if getattr(config, name)
    }
    return HealthTimes(**given, retries=config.retries or HealthTimes().retries)


def has_probe(config: HealthConfig | None) -> bool:
    """Whether there is anything to run: neither NONE nor a word that nobody knows."""
    return config is not None and config.test[:1] in (["CMD"], ["CMD-SHELL"])


def next_probe(times: HealthTimes, status: str, up_for: float) -> float:
    """Seconds from the end of a probe, or from the container's start, to the next one (moby `daemon/health.go`)."""
    if status == "starting" and up_for < times.start_period:
        return times.start_interval
    return times.interval


def judge(times: HealthTimes, status: str, streak: int, exit_code: int, up_for: float) -> tuple[str, int]:
    """Status and failing streak after a probe that began when the container had been up for `up_for` seconds.

    The first success ends `starting`. A stopped or paused container is `unhealthy` whatever its streak says.
    """
    if exit_code == 0:
        return "healthy", 0
    if status == "starting" and up_for < times.start_period:
        return status, streak
    streak += 1
    return ("unhealthy" if streak >= times.retries else status), streak
