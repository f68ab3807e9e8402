"""One request to an engine's API, without a client of anybody's between."""

import http.client
import json
import socket

from tests.harness.engine import EngineProcess

VERSION = "v1.47"


class Call:
    """A request that is sent; `answer` waits for what comes. A client that goes away does so with `close`."""

    def __init__(
        self, engine: EngineProcess, method: str, target: str, body: object = None, version: str = VERSION
    ) -> None:
        self._connection = http.client.HTTPConnection("localhost")
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.settimeout(15)
        self._connection.sock.connect(str(engine.socket))
        headers = {} if body is None else {"Content-Type": "application/json"}
        self._connection.request(
            method, f"/{version}{target}", None if body is None else json.dumps(body), headers=headers
        )

    def head(self) -> int:
        """The status: the engine knows of the request."""
        self._response = self._connection.getresponse()
        return self._response.status

    def answer(self) -> tuple[int, object]:
        """(status, decoded JSON; None where there is no body)."""
        status = self.head()
        return status, self.body()

    def body(self) -> object:
        data = self._response.read()
        self.close()
        return json.loads(data) if data.strip() else None

    def close(self) -> None:
        self._connection.close()


def call(
    engine: EngineProcess, method: str, target: str, body: object = None, version: str = VERSION
) -> tuple[int, object]:
    return Call(engine, method, target, body, version).answer()
