"""TLS towards registries: private authorities and client certificates of `certs.d/<host[:port]>`.

*.crt           authorities that are trusted beside the system's
*.cert, *.key   client certificate and its key, of the same name
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hafen.errors import InvalidArgument

# OpenSSL's X509_V_ERR_* (x509_vfy.h), in the words of Go's crypto/x509, which people search for
_EXPIRED = (9, 10)
_NAME = (62, 64)


def context(
    host: str,
    verify: bool,
    directories: Sequence[str],
    authorities: Sequence[str] = (),
    clients: Sequence[tuple[str, str | None]] = (),
) -> ssl.SSLContext:
    """For one `host[:port]`, with further files of authorities, and of client certificates with their keys.
    InvalidArgument where its directory or one of the files makes no sense."""
    made = ssl.create_default_context()
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    for directory in directories:
        _load(made, os.path.join(directory, host))
    for path in authorities:
        with _worded(path):
            made.load_verify_locations(path)
    for certificate, key in clients:
        with _worded(certificate):
            made.load_cert_chain(certificate, key)
    return made


@contextmanager
def _worded(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # an ssl.SSLError is one
        raise InvalidArgument(f"{path}: {error.strerror or error}") from error


def _load(made: ssl.SSLContext, directory: str) -> None:
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        path = os.path.join(directory, name)
        if name.endswith(".crt"):
            with _worded(path):
                made.load_verify_locations(path)
        elif name.endswith(".cert"):
            key = f"{name[:-5]}.key"
            if key not in names:
                raise InvalidArgument(
                    f"missing key {key} for client certificate {name}. CA certificates must use the extension .crt"
                )
            with _worded(path):
                made.load_cert_chain(path, os.path.join(directory, key))
        elif name.endswith(".key") and f"{name[:-4]}.cert" not in names:
            raise InvalidArgument(f"missing client certificate {name[:-4]}.cert for key {name}")


def describe(error: BaseException, host: str) -> str:
    """What went wrong, as Go's TLS says it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _EXPIRED:
            reason = "certificate has expired or is not yet valid"
        elif error.verify_code in _NAME:
            reason = f"certificate is not valid for {host}"
        else:
            reason = "certificate signed by unknown authority"
        return f"tls: failed to verify certificate: x509: {reason}"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "http: server gave HTTP response to HTTPS client"
    return f"tls: {error}"
