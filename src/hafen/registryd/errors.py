"""Errors as the distribution specification words them: the classes of its codes, and the only map to status and body.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes. What has no code there is UNKNOWN
(as in Docker's registry), with the status of its class.
"""

from __future__ import annotations

import json
from typing import Final

from hafen import errors
from hafen.errors import Conflict, Forbidden, HafenError, InvalidArgument, NotFound, Unauthorized, Unavailable
from hafen.http.message import Reply

Headers = tuple[tuple[str, str], ...]


class BlobUnknown(NotFound):
    """The blob is not in this repository."""


class UploadUnknown(NotFound):
    """No such upload is in progress here."""


class ManifestUnknown(NotFound):
    """No manifest of this tag or digest is in this repository."""


class NameUnknown(NotFound):
    """There is no such repository."""


class ManifestBlobUnknown(InvalidArgument):
    """A manifest refers to what is not in its repository."""


class UploadInvalid(InvalidArgument):
    """The upload cannot go on like this."""


class UploadBusy(Conflict):
    """Another request writes to this upload now."""


class DigestInvalid(InvalidArgument):
    """Not a digest, or not the digest of the content."""


class ManifestInvalid(InvalidArgument):
    """Not a manifest that can be kept."""


class ManifestTooLarge(InvalidArgument):
    """A manifest over the limit."""


class NameInvalid(InvalidArgument):
    """Not a repository's name."""


class TagInvalid(InvalidArgument):
    """Not a tag."""


class SizeInvalid(InvalidArgument):
    """The length that was announced is not that of the content."""


class RangeInvalid(InvalidArgument):
    """A chunk that does not continue the upload, or a range outside of the blob. The headers say what is there."""

    def __init__(self, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.headers = headers


class PageInvalid(InvalidArgument):
    """Not a number of results."""


class Unsupported(InvalidArgument):
    """The method is not known here, or switched off."""


class QuotaExceeded(Forbidden):
    """More bytes than the repositories under a prefix may have."""


class TooManyRequests(Unavailable):
    """Asked too often; the headers say when to come again, where that is known."""

    def __init__(self, message: str, after: int | None = None) -> None:
        super().__init__(message)
        self.headers: Headers = () if after is None else (("Retry-After", str(after)),)


_CODES: Final[tuple[tuple[type[HafenError], int, str], ...]] = (
    (BlobUnknown, 404, "BLOB_UNKNOWN"),
    (UploadUnknown, 404, "BLOB_UPLOAD_UNKNOWN"),
    (ManifestUnknown, 404, "MANIFEST_UNKNOWN"),
    (NameUnknown, 404, "NAME_UNKNOWN"),
    (ManifestBlobUnknown, 400, "MANIFEST_BLOB_UNKNOWN"),
    (UploadInvalid, 400, "BLOB_UPLOAD_INVALID"),
    (UploadBusy, 409, "BLOB_UPLOAD_INVALID"),
    (DigestInvalid, 400, "DIGEST_INVALID"),
    (ManifestInvalid, 400, "MANIFEST_INVALID"),
    (ManifestTooLarge, 413, "MANIFEST_INVALID"),
    (NameInvalid, 400, "NAME_INVALID"),
    (TagInvalid, 400, "TAG_INVALID"),
    (SizeInvalid, 400, "SIZE_INVALID"),
    (RangeInvalid, 416, "BLOB_UPLOAD_INVALID"),
    (PageInvalid, 400, "PAGINATION_NUMBER_INVALID"),
    (Unsupported, 405, "UNSUPPORTED"),
    (Unauthorized, 401, "UNAUTHORIZED"),
    (Forbidden, 403, "DENIED"),
    (NotFound, 404, "UNKNOWN"),
    (Conflict, 409, "UNKNOWN"),
    (InvalidArgument, 400, "UNKNOWN"),
    (TooManyRequests, 429, "TOOMANYREQUESTS"),
    (Unavailable, 503, "UNAVAILABLE"),
    (errors.OutOfSpace, 507, "UNKNOWN"),
    (HafenError, 500, "UNKNOWN"),
)


def reply(error: HafenError, headers: Headers = ()) -> Reply:
    """The answer that tells of the error."""
    headers = error.headers if isinstance(error, RangeInvalid | TooManyRequests) else headers
    status, code = next((status, code) for cls, status, code in _CODES if isinstance(error, cls))
    return failure(status, code, error.message, headers)


def failure(status: int, code: str, message: str, headers: Headers = ()) -> Reply:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode() + b"\n"
    return Reply(status, body, "application/json", headers)
