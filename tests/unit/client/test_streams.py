import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafen.client.engine import Hijacked
from hafen.client.streams import Demultiplexer, DetachKeys, Session, receive
from hafen.errors import Unavailable
from hafen.spec import stdcopy


def test_detach_keys_are_found_across_pieces() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"ab\x10") == (b"ab", False)
    assert keys.feed(b"\x11cd") == (b"", True)


def test_keys_that_only_begin_the_sequence_are_passed_on() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"\x10\x10") == (b"\x10", False)
    assert keys.feed(b"x") == (b"\x10x", False)


@given(st.binary(max_size=60), st.lists(st.integers(1, 9), max_size=20))
def test_without_the_sequence_everything_is_passed_on(data: bytes, cuts: list[int]) -> None:
    keys, passed, rest = DetachKeys(b"\xff\xfe"), b"", data.replace(b"\xff", b"")
    whole = rest
    for cut in [*cuts, len(whole) + 1]:
        passed += keys.feed(rest[:cut])[0]
        rest = rest[cut:]
    assert passed == whole


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=12), st.integers(1, 64))
def test_frames_cut_anywhere_reach_their_streams(frames: list[tuple[int, bytes]], size: int) -> None:
    pipes = {1: os.pipe(), 2: os.pipe()}
    try:
        demultiplexer = Demultiplexer({stream: pipe[1] for stream, pipe in pipes.items()})
        data, rest = b"".join(stdcopy.frame(stream, payload) for stream, payload in frames), b""
        for start in range(0, len(data), size):
            piece = rest + data[start : start + size]
            left = demultiplexer.feed(memoryview(piece))
            rest = piece[len(piece) - left :] if left else b""
        assert not rest
        for stream, pipe in pipes.items():
            expected = b"".join(payload for number, payload in frames if number == stream)
            os.set_blocking(pipe[0], False)
            assert (os.read(pipe[0], 65536) if expected else b"") == expected
    finally:
        for pipe in pipes.values():
            os.close(pipe[0])
            os.close(pipe[1])


def test_an_error_in_the_stream_is_raised() -> None:
    data = stdcopy.frame(3, b"it broke")
    with pytest.raises(Unavailable, match="it broke"):
        Demultiplexer({}).feed(memoryview(data))


def test_what_was_not_used_is_presented_again() -> None:
    ours, theirs = socket.socketpair()
    seen: list[bytes] = []

    def sink(data: memoryview) -> int:
        seen.append(bytes(data))
        return 1 if len(seen) < 3 else 0

    with ours, theirs:
        theirs.sendall(b"b")
        theirs.close()
        receive(ours, b"a", sink)
    assert seen == [b"a", b"ab"]


def test_a_session_carries_input_and_output(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    source, sink = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"question")
    with source.open("rb") as stdin, sink.open("wb") as stdout, theirs:
        theirs.sendall(stdcopy.frame(1, b"answer"))
        session = Session(
            Hijacked(ours, b"", True),
            stdin=stdin.fileno(),
            stdout=stdout.fileno(),
            stderr=None,
            tty=False,
            detach_keys=b"",
        )
        import threading

        runner = threading.Thread(target=session.run)
        runner.start()
        got = b""
        while piece := theirs.recv(100):  # until our half is closed
            got += piece
        theirs.shutdown(socket.SHUT_WR)
        runner.join(10)
    assert got == b"question"
    assert sink.read_bytes() == b"answer"
    assert not session.detached
