"""Scheduler, I/O priority, memory policy, execution domain and CPU affinity of a process, from the configuration."""

import os

from hafen.errors import InvalidArgument, System
from hafen.kernel import consts, process
from hafen.spec.runtime_config import Config, Process


def set_placement(wanted: Process, config: Config) -> None:
    """Each part only where it is configured."""
    if wanted.scheduler:
        scheduler = wanted.scheduler
        flags = 0
        for flag in scheduler.flags:
            if flag not in consts.SCHED_FLAGS:
                raise InvalidArgument(f"process.scheduler.flags: unknown flag {flag!r}")
            flags |= consts.SCHED_FLAGS[flag]
        process.set_scheduler(
            consts.SCHED_POLICIES[scheduler.policy],
            nice=scheduler.nice,
            priority=scheduler.priority,
            flags=flags,
            times=(scheduler.runtime, scheduler.deadline, scheduler.period),
        )
    if wanted.io_priority:
        process.set_io_priority(consts.IOPRIO_CLASSES[wanted.io_priority.klass], wanted.io_priority.priority)
    policy = config.linux.memory_policy
    if policy:
        if policy.mode not in consts.MEMORY_POLICIES:
            raise InvalidArgument(f"linux.memoryPolicy.mode: unknown mode {policy.mode!r}")
        mode = consts.MEMORY_POLICIES[policy.mode]
        for flag in policy.flags:
            if flag not in consts.MEMORY_POLICY_FLAGS:
                raise InvalidArgument(f"linux.memoryPolicy.flags: unknown flag {flag!r}")
            mode |= consts.MEMORY_POLICY_FLAGS[flag]
        process.set_memory_policy(mode, parse_list(policy.nodes))
    personality = config.linux.personality
    if personality:
        domains = {"LINUX": consts.PER_LINUX, "LINUX32": consts.PER_LINUX32}
        if personality.domain not in domains or personality.flags:
            raise InvalidArgument(f"linux.personality: unsupported domain or flags: {personality.domain!r}")
        process.set_personality(domains[personality.domain])
    if wanted.exec_cpu_affinity and wanted.exec_cpu_affinity.final:
        try:
            os.sched_setaffinity(0, parse_list(wanted.exec_cpu_affinity.final))
        except OSError as error:
            raise System(f"setting CPU affinity {wanted.exec_cpu_affinity.final}: {error.strerror}") from None


def parse_list(text: str) -> frozenset[int]:
    """ "0-2,5" -> {0, 1, 2, 5}, the kernel's list format (cpuset(7))."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not first.isdecimal() or not last.isdecimal() or int(last) < int(first):
            raise InvalidArgument(f"not a list of numbers: {text!r}")
        found.update(range(int(first), int(last) + 1))
    return frozenset(found)
