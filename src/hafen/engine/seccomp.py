"""Which seccomp filter a container gets: Docker's default profile, the request's own, or none.

The default profile is data (`seccomp_default.json`, from moby/profiles, Apache License 2.0). Conversion and
compilation take milliseconds, so each pair of profile and capabilities is done once for the engine's life.
"""

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from hafen.errors import System
from hafen.kernel import seccomp
from hafen.spec.runtime_config import Seccomp
from hafen.spec.seccomp import from_docker_profile


@dataclass(frozen=True, slots=True)
class SeccompFilter:
    """`profile` goes into the OCI configuration, `program` to the child that installs it."""

    profile: Seccomp
    program: bytes


def choose(option: str, capabilities: Collection[str]) -> SeccompFilter | None:
    """`option` is what follows "seccomp=" in a security option: "" or "builtin" for the default profile,
    "unconfined", or a profile's JSON text. `capabilities` are the bounding set ("CAP_CHOWN", ...).

    None is unconfined. System with Docker's text for a profile that is not one.
    """
    if option == "unconfined":
        return None
    return _compiled(option if option != "builtin" else "", frozenset(capabilities))


@lru_cache(maxsize=64)
def _compiled(text: str, capabilities: frozenset[str]) -> SeccompFilter | None:
    system = os.uname()
    profile = from_docker_profile(_decoded(text), capabilities, system.machine, system.release)
    return SeccompFilter(profile, seccomp.compile(profile)) if profile else None


def _decoded(text: str) -> dict[str, Any]:
    text = text or files("hafen.engine").joinpath("seccomp_default.json").read_text(encoding="utf-8")
    try:
        document = json.loads(text)
    except ValueError as error:
        position = error.pos if isinstance(error, json.JSONDecodeError) else 0
        rest = text[position:].lstrip()
        reason = (
            f"invalid character '{rest[0]}' looking for beginning of value" if rest else "unexpected end of JSON input"
        )
        raise System(f"Decoding seccomp profile failed: {reason}") from None
    if not isinstance(document, dict):
        raise System(f"Decoding seccomp profile failed: it must be an object, not {type(document).__name__}")
    return document
