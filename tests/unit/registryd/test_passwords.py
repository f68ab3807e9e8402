"""Passwords: guessing them holds up nobody who knows theirs, and does not tell which names there are."""

from __future__ import annotations

import base64
import select
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, closing
from pathlib import Path

import bcrypt
import pytest

from hafen.errors import InvalidArgument
from hafen.registryd.passwords import MAX_WAITING, Passwords, parse_htpasswd
from tests.harness.registry import Client, RegistryProcess, sha256

ANNA = f"anna:{bcrypt.hashpw(b'apple', bcrypt.gensalt(4)).decode()}"
SLOW = "slow:$2y$14$" + "." * 53  # a second or so of hashing, and nobody knows the password


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryProcess]:
    (tmp_path / "htpasswd").write_text(f"{ANNA}\n{SLOW}")
    with RegistryProcess(tmp_path / "root", "--htpasswd", str(tmp_path / "htpasswd")) as process:
        yield process
        process.kill()  # with the guesses that it has not come to


def push(client: Client, data: bytes) -> int:
    headers = {"Authorization": basic("anna", "apple")}
    return client("POST", f"/v2/a/blobs/uploads/?digest={sha256(data)}", data, headers).status


def guess(port: int, password: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    head = f"GET /v2/ HTTP/1.1\r\nHost: here\r\nAuthorization: {basic('slow', password)}\r\n\r\n"
    sock.sendall(head.encode())
    return sock


def test_who_guesses_holds_up_nobody_else(registry: RegistryProcess) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(closing(registry.client()))
        assert push(client, b"first") == 201
        guesses = [stack.enter_context(guess(registry.port, f"p{number}")) for number in range(MAX_WAITING + 100)]
        refused = guesses[-1].recv(1 << 16).decode()
        assert refused.startswith("HTTP/1.1 429 ")
        assert "Retry-After: 1\r\n" in refused
        assert "TOOMANYREQUESTS" in refused
        assert push(client, b"second") == 201
        unanswered = len(guesses) - len(select.select(guesses, [], [], 0)[0])
        assert unanswered > MAX_WAITING / 2


class Hashing(Executor):
    """Does at once what it is told, and remembers against which hashes."""

    def __init__(self) -> None:
        self.hashes: list[bytes] = []

    def submit(self, fn: Callable[..., object], /, *args: object, **_: object) -> Future[object]:  # type: ignore[override]  # no generics
        future: Future[object] = Future()
        hashed = args[1]
        assert isinstance(hashed, bytes)
        self.hashes.append(hashed)
        future.set_result(fn(*args))
        return future


async def test_an_unknown_name_costs_as_much_as_a_known_one() -> None:
    users, executor = parse_htpasswd(ANNA), Hashing()
    passwords = Passwords(lambda: users, executor)
    for name, password in (("anna", b"wrong"), ("nobody", b"wrong"), ("nobody", b"apple")):
        assert not await passwords.right(name, password)
    assert executor.hashes == [users["anna"]] * 3
    assert await passwords.right("anna", b"apple")
    users.clear()
    assert not await passwords.right("nobody", b"apple")


@pytest.mark.parametrize(
    "hashed",
    [f"$2y$05${'.' * 21}a{'.' * 31}", f"$2y$05${'.' * 52}", f"$2y$05${'.' * 54}", f"$2y$05${'.' * 52}=",
     f"$2y$03${'.' * 53}", f"$2y$32${'.' * 53}", f"$2y$5${'.' * 53}", f"$2x$05${'.' * 53}"],
)  # fmt: skip
def test_a_hash_that_cannot_be_checked_is_refused(hashed: str) -> None:
    with pytest.raises(InvalidArgument, match="line 1"):
        parse_htpasswd(f"anna:{hashed}")
