"""All operations of the Engine API that are answered, in the order in which paths are tried."""

from __future__ import annotations

from typing import Final

from hafen.api.router import Router
from hafen.api.routes import absent, containers, events, exec, images, networks, streams, system, volumes

ROUTES: Final = (
    *system.ROUTES,
    *absent.ROUTES,  # before those whose names of containers and images may hold slashes
    *containers.ROUTES,
    *streams.ROUTES,
    *exec.ROUTES,
    *images.ROUTES,
    *networks.ROUTES,
    *volumes.ROUTES,
    *events.ROUTES,
)


def router() -> Router:
    return Router(ROUTES)
