"""An engine to talk to: requests with errors raised as `hafen.errors`, JSON in and out, kept connections."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hafen import errors
from hafen.client.address import Endpoint
from hafen.client.dial import Stream, dial
from hafen.client.transport import Body, Connection, Response

# What the engine answers: decoded JSON, shown to people through templates that may name any field of it.
Document = dict[str, Any]
Query = Mapping[str, str | int | bool | list[str] | None]

_BY_STATUS: dict[int, type[errors.HafenError]] = {
    304: errors.NotModified,
    400: errors.InvalidArgument,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    501: errors.NotImplemented,
    503: errors.Unavailable,
    507: errors.OutOfSpace,
}


class Hijacked:
    """A raw connection after an upgrade, with the bytes that came along with the head."""

    def __init__(self, stream: Stream, prefix: bytes, multiplexed: bool) -> None:
        self.stream = stream
        self.prefix = prefix
        self.multiplexed = multiplexed

    def close(self) -> None:
        self.stream.close()


class Engine:
    """One endpoint; keeps an idle connection between calls. Not for several threads at once.

    `when_absent` is called once when nothing listens, may start the engine, and says whether to try again.
    """

    def __init__(
        self, endpoint: Endpoint, when_absent: "Callable[[Endpoint, errors.Unavailable], bool] | None" = None
    ) -> None:
        self.endpoint = endpoint
        self._when_absent = when_absent
        self.api_version = ""
        version = os.environ.get("DOCKER_API_VERSION", "")
        self._prefix = f"/v{version}" if version else ""
        self._answered: list[tuple[Connection, Response]] = []

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Also of the responses that are not read to their end."""
        for connection, _ in self._answered:
            connection.close()
        self._answered.clear()

    def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: object | None = None,
        *,
        stream: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """The response of a call that succeeded; the body is not read yet.

        `body` is sent as JSON, `stream` as it is. Raises the class that stands for the status.
        """
        sent = {"User-Agent": "Hafen-Client"}
        sent.update(headers or {})
        if body is not None:
            stream = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        target = self._target(path, query)
        connection = self._kept()
        response = None
        if connection:
            try:
                response = connection.request(method, target, sent, stream)
            except errors.Unavailable:
                connection.close()
                if not isinstance(stream, bytes | None):
                    raise
                # The engine closed the kept connection (it was restarted, say): this request was never read.
        if not connection or not response:
            connection = Connection(self.dial())
            response = _first(connection, method, target, sent, stream)
        self._answered.append((connection, response))
        self.api_version = response.headers.get("api-version", self.api_version)
        if response.status >= 300:
            raise _failure(response)
        return response

    def get(self, path: str, query: Query | None = None) -> Any:
        """Decoded JSON of a GET."""
        return json.loads(self.call("GET", path, query).read())

    def post(self, path: str, query: Query | None = None, body: object | None = None) -> Any:
        """POST JSON, decode the answer; None where there is none."""
        data = self.call("POST", path, query, body).read()
        return json.loads(data) if data.strip() else None

    def delete(self, path: str, query: Query | None = None) -> Any:
        data = self.call("DELETE", path, query).read()
        return json.loads(data) if data.strip() else None

    def head(self, path: str, query: Query | None = None) -> Mapping[str, str]:
        return self.call("HEAD", path, query).headers

    def documents(self, response: Response) -> Iterator[Document]:
        """The JSON values of a streamed response, as they arrive."""
        decoder = json.JSONDecoder()
        text, pending = "", b""
        for chunk in response:
            pending += chunk
            try:
                text, pending = text + pending.decode("utf-8"), b""
            except UnicodeDecodeError as error:
                text, pending = text + pending[: error.start].decode("utf-8"), pending[error.start :]
            text = text.lstrip()
            while text:
                try:
                    value, end = decoder.raw_decode(text)
                except ValueError:
                    break  # the rest of the value is still to come
                yield value
                text = text[end:].lstrip()

    def hijack(self, path: str, query: Query | None = None, body: object | None = None) -> Hijacked:
        """POST and take the connection over: what follows are the container's streams."""
        connection = Connection(self.dial())
        headers = {"User-Agent": "Hafen-Client", "Connection": "Upgrade", "Upgrade": "tcp"}
        data = b""
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        response = _first(connection, "POST", self._target(path, query), headers, data)
        if response.status not in (101, 200):
            self._answered.append((connection, response))
            raise _failure(response)
        stream, prefix = connection.detach()
        return Hijacked(stream, prefix, response.headers.get("content-type", "").endswith("multiplexed-stream"))

    def dial(self) -> Stream:
        """A fresh raw connection."""
        try:
            return dial(self.endpoint)
        except errors.Unavailable as error:
            when_absent, self._when_absent = self._when_absent, None
            if when_absent is None or not when_absent(self.endpoint, error):
                raise
            return dial(self.endpoint)

    def _target(self, path: str, query: Query | None) -> str:
        if not query:
            return self._prefix + path
        pairs: list[tuple[str, str]] = []
        for name, value in query.items():
            if value is None or value is False or value == "":
                continue
            values = value if isinstance(value, list) else ["1" if value is True else str(value)]
            pairs += [(name, item) for item in values]
        encoded = "&".join(f"{name}={segment(item, '')}" for name, item in pairs)
        return f"{self._prefix}{path}?{encoded}" if encoded else self._prefix + path

    def _kept(self) -> Connection | None:
        """A connection whose response is read to its end."""
        for item in self._answered:
            connection, response = item
            if response.reusable:
                self._answered.remove(item)
                return connection
        return None


def _first(
    connection: Connection, method: str, target: str, headers: Mapping[str, str], stream: Body | None
) -> Response:
    """The first request of a connection, which is closed where there is no answer."""
    try:
        return connection.request(method, target, headers, stream)
    except BaseException:
        connection.close()
        raise


_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def segment(name: str, safe: str = "/:@") -> str:
    """A name percent-encoded for a path (`urllib.parse` would cost a tenth of the start-up time)."""
    plain = _PLAIN | frozenset(safe.encode())
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in name.encode("utf-8", "surrogateescape"))


def filters_query(filters: list[str]) -> str:
    """`["label=a", "status=exited"]` as the `filters` parameter; empty for none."""
    grouped: dict[str, list[str]] = {}
    for item in filters:
        name, _, value = item.partition("=")
        grouped.setdefault(name.strip().lower(), []).append(value.strip())
    return json.dumps({name: dict.fromkeys(values, True) for name, values in grouped.items()}) if grouped else ""


def _failure(response: Response) -> errors.HafenError:
    data = response.read()
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        message = data.decode("utf-8", "replace").strip() or f"status {response.status}"
    return _BY_STATUS.get(response.status, errors.System)(f"Error response from daemon: {message}")
