"""Errors as HTTP: hafen.errors to status code and JSON body; the only such map of this face."""

from __future__ import annotations

from typing import Final

from hafen import errors
from hafen.spec.wire import gojson

STATUS: Final[dict[type[errors.HafenError], int]] = {
    errors.InvalidArgument: 400,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.NotModified: 304,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.Unavailable: 503,
    errors.NotImplemented: 501,
    errors.OutOfSpace: 500,  # Docker's; clients know no 507
    errors.Corrupt: 500,
    errors.System: 500,
}


def status(error: errors.HafenError) -> int:
    """HTTP status of a deliberate error."""
    if isinstance(error, errors.StartFailed):
        # the command is the client's fault, all else is not (moby: startInvalidConfigError)
        return 400 if error.exit_code in (126, 127) else 500
    return next((code for cls, code in STATUS.items() if isinstance(error, cls)), 500)


def body(message: str) -> bytes:
    """Docker's error document."""
    return gojson.encode({"message": message}) + b"\n"
