"""A forward proxy for tests: CONNECT and absolute URLs, names of its own, a password where one is wanted."""

import base64
import http.client
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit


class ForwardProxy:
    """`names` maps a host and port that clients ask for to where it really is; `seen` are the requests' lines."""

    def __init__(self, names: dict[str, tuple[str, int]], password: str = "") -> None:
        self.seen: list[str] = []
        wanted = "Basic " + base64.b64encode(password.encode()).decode() if password else ""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _known(self) -> bool:
                proxy.seen.append(f"{self.command} {self.path}")
                if wanted and self.headers.get("Proxy-Authorization") != wanted:
                    self.send_response(407)
                    self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return False
                return True

            def do_CONNECT(self) -> None:
                self.close_connection = True
                if not self._known():
                    return
                with socket.create_connection(names[self.path], timeout=20) as target:
                    self.send_response(200)
                    self.end_headers()
                    _relay(self.connection, target)

            def do_GET(self) -> None:
                if not self._known():
                    return
                parts = urlsplit(self.path)
                connection = http.client.HTTPConnection(*names[parts.netloc], timeout=20)
                headers = {name: value for name, value in self.headers.items() if not name.startswith("Proxy-")}
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                connection.request(self.command, self.path.partition(parts.netloc)[2], body, headers)
                answer = connection.getresponse()
                data = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("content-length", "connection", "date", "server", "transfer-encoding"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                connection.close()

            do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://{password}{'@' if password else ''}127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "ForwardProxy":
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Bytes both ways, until either side ends."""
    while True:
        ready, _, _ = select.select([one, other], [], [], 20)
        if not ready:
            return
        for side in ready:
            data = side.recv(1 << 16)
            if not data:
                return
            (other if side is one else one).sendall(data)
