"""Wrap functions of a running process so that each call leaves a line with its begin and end in a file.

Imported into the lean processes too: nothing here costs anything to a process that does not call `install`. A line is
`begin end pid depth label`, times in nanoseconds of CLOCK_MONOTONIC, which all processes share.
"""

import importlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Step(NamedTuple):
    """A function by module and qualified name, and what it is called in the report."""

    module: str
    name: str
    label: str


class Recorder:
    """Appends to one file; opened for each line, as shims close every descriptor that they do not know."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.depth = 0

    def write(self, begin: int, end: int, label: str, depth: int) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, f"{begin} {end} {os.getpid()} {depth} {label}\n".encode())
        finally:
            os.close(descriptor)


def install(steps: Iterable[Step], recorder: Recorder) -> list[str]:
    """Wrap them all; the names of those that the code no longer has."""
    missing = []
    for step in steps:
        try:
            owner: Any = importlib.import_module(step.module)
            *path, last = step.name.split(".")
            for part in path:
                owner = getattr(owner, part)
            setattr(owner, last, _wrapped(getattr(owner, last), step.label, recorder))
        except (ImportError, AttributeError):
            missing.append(f"{step.module}:{step.name}")
    return missing


def _wrapped(function: Callable[..., Any], label: str, recorder: Recorder) -> Callable[..., Any]:
    if function.__code__.co_flags & 0x80:  # CO_COROUTINE

        async def waited(*args: Any, **kwargs: Any) -> Any:
            begin = time.monotonic_ns()
            try:
                return await function(*args, **kwargs)
            finally:
                recorder.write(begin, time.monotonic_ns(), label, 0)

        return waited

    def called(*args: Any, **kwargs: Any) -> Any:
        begin = time.monotonic_ns()
        recorder.depth += 1
        try:
            return function(*args, **kwargs)
        finally:
            recorder.depth -= 1
            recorder.write(begin, time.monotonic_ns(), label, recorder.depth)

    return called


def trace_runtime(recorder: Recorder) -> None:
    """The runtime tells of its own steps (`parent.Options.trace`): have it do so, and write them down too."""
    from hafen.runtime import join, parent

    run, launch, advance = parent.run, join.launch, join.Joining.advance

    def traced_run(*args: Any, **kwargs: Any) -> Any:
        begin = time.monotonic_ns()
        kwargs["options"] = kwargs["options"]._replace(trace=True)
        running = run(*args, **kwargs)
        recorder.write(begin, time.monotonic_ns(), "runtime: run", 0)
        _write_trace(running.trace, begin, recorder)
        return running

    def traced_launch(*args: Any, **kwargs: Any) -> Any:
        kwargs["options"] = kwargs.get("options", parent.DEFAULT)._replace(trace=True)
        begin = time.monotonic_ns()
        joining = launch(*args, **kwargs)
        recorder.write(begin, time.monotonic_ns(), "runtime: launch", 0)
        return joining

    def traced_advance(joining: Any) -> Any:
        running = advance(joining)
        if running is not None:
            _write_trace(running.trace, 0, recorder)  # counted from boot, not from the call
        return running

    for owner, name, function in (
        (parent, "run", traced_run),
        (join, "launch", traced_launch),
        (join.Joining, "advance", traced_advance),
    ):
        setattr(owner, name, function)


def _write_trace(trace: Iterable[tuple[str, int]], origin: int, recorder: Recorder) -> None:
    times = [(origin + 1000 * at, text) for text, at in trace]
    ends = [at for at, _ in times[1:]] + [time.monotonic_ns()]
    for (at, text), end in zip(times, ends, strict=True):
        recorder.write(at, end, f"runtime: {text.strip()}", 1)


def zygote(descriptor: int, path: str) -> None:
    """`hafen.shim.zygote.main` with marks."""
    from bench.steps import LEAN
    from hafen.shim import zygote as real

    recorder = Recorder(path)
    install(LEAN, recorder)
    trace_runtime(recorder)
    real.main(descriptor)
