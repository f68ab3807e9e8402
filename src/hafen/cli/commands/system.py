"""`system dial-stdio`: the remote end of `DOCKER_HOST=ssh://`."""

import sys
import threading

from hafen.cli.command import Call, Command
from hafen.client.streams import read_some, receive, write_all
from hafen.client.transport import half_close


def _dial_stdio(call: Call) -> int:
    stream = call.engine.dial()
    sys.stdout.flush()

    def send() -> None:
        try:
            while data := read_some(0):
                stream.sendall(data)
            half_close(stream)
        except OSError:
            pass  # the engine has closed; the reading side ends the command

    threading.Thread(target=send, daemon=True).start()

    def pass_on(data: memoryview) -> int:
        write_all(1, [data])
        return 0

    receive(stream, b"", pass_on)
    return 0


DIAL_STDIO = Command(
    _dial_stdio, "", "Proxy the stdio stream to the daemon connection. Should not be invoked manually.", most=0
)
