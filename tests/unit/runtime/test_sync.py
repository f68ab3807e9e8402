"""The conversation between parent and child over a socket pair."""

import os

import pytest

from hafen.errors import StartFailed, System
from hafen.runtime.sync import Channel


def test_messages_errors_descriptors_and_the_end() -> None:
    ours, theirs = Channel.pair()
    read, write = os.pipe()
    theirs.send("ready", {"warnings": ["w"]}, (write,))
    os.close(write)
    message = ours.expect("ready", "the child")
    assert message.body == {"warnings": ["w"]}
    os.write(message.descriptors[0], b"x")
    assert os.read(read, 1) == b"x"
    assert not os.get_inheritable(message.descriptors[0])
    os.close(message.descriptors[0])
    os.close(read)
    theirs.send_error(StartFailed("no", 127))
    with pytest.raises(StartFailed) as caught:
        ours.receive()
    assert caught.value.exit_code == 127
    theirs.send("go")
    with pytest.raises(System, match="'go' where 'ready' was due"):
        ours.expect("ready", "the child")
    theirs.close()
    assert ours.receive() is None
    with pytest.raises(System, match="the child ended before it said 'ready'"):
        ours.expect("ready", "the child")
    ours.close()
