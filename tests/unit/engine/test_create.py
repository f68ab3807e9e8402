"""The container's configuration over the image's, as Docker merges them."""

import pytest

from hafen.engine.create import command, merge, new_id
from hafen.errors import InvalidArgument
from hafen.spec import names
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.image import EmptyObject, ImageConfig

IMAGE = ImageConfig(
    env=["PATH=/p", "A=image"],
    entrypoint=["/entry"],
    cmd=["serve"],
    working_dir="/srv",
    user="app",
    labels={"a": "image", "b": "image"},
    volumes={"/data": EmptyObject()},
    stop_signal="SIGINT",
)


def test_image_gives_what_the_container_leaves_open() -> None:
    merged = merge(ContainerConfig(env=["A=mine", "B=1"], labels={"a": "mine"}), IMAGE)
    assert merged.env == ["A=mine", "B=1", "PATH=/p"]
    assert merged.labels == {"a": "mine", "b": "image"}
    assert (merged.working_dir, merged.user, merged.stop_signal) == ("/srv", "app", "SIGINT")
    assert command(merged) == ("/entry", ("serve",))
    assert list(merged.volumes or {}) == ["/data"]


def test_a_command_of_its_own_keeps_the_entrypoint() -> None:
    assert command(merge(ContainerConfig(cmd=["other"]), IMAGE)) == ("/entry", ("other",))


def test_an_entrypoint_of_its_own_drops_the_command() -> None:
    assert command(merge(ContainerConfig(entrypoint=["/bin/sh"]), IMAGE)) == ("/bin/sh", ())


def test_an_empty_entrypoint_clears_the_images() -> None:
    assert command(merge(ContainerConfig(entrypoint=[""], cmd=["ls"]), IMAGE)) == ("ls", ())


def test_no_command() -> None:
    with pytest.raises(InvalidArgument, match="no command specified"):
        command(merge(ContainerConfig(entrypoint=[""]), ImageConfig()))


def test_without_an_image_configuration() -> None:
    assert merge(ContainerConfig(cmd=["x"]), None).cmd == ["x"]


def test_ids() -> None:
    found = {new_id() for _ in range(100)}
    assert len(found) == 100
    assert all(names.is_id(one) and not one[:12].isdecimal() for one in found)
