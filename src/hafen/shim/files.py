"""Files in the run and data directory of a container."""

import json
import os


def write_json(path: str, value: object) -> None:
    """Atomically: a reader sees all of it or nothing."""
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, json.dumps(value).encode())
    finally:
        os.close(descriptor)
    os.rename(path + ".new", path)


def remove_tree(path: str) -> None:
    for name in os.listdir(path):
        child = os.path.join(path, name)
        if os.path.isdir(child) and not os.path.islink(child):
            remove_tree(child)
        else:
            os.unlink(child)
    os.rmdir(path)


def redirect_errors(data_dir: str) -> None:
    """Standard output and error to `shim.log`: what they were is the engine's, and must not be held open."""
    log = os.open(os.path.join(data_dir, "shim.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
