"""Mount grammar; the texts were recorded from Docker 26.1."""

import pytest

from hafen.errors import HafenError, InvalidArgument, System
from hafen.spec.mounts import image_volume, parse_bind, parse_mount, parse_tmpfs, parse_volumes_from
from hafen.spec.wire.hostconfig import BindOptions, Mount, TmpfsOptions, VolumeOptions


def test_bind() -> None:
    point = parse_bind("/a/../b:/c/./d/:ro,rslave")
    assert (point.type, point.source, point.destination) == ("bind", "/b", "/c/d")
    assert (point.rw, point.propagation, point.mode, point.create_source) == (False, "rslave", "ro,rslave", True)


def test_named_volume() -> None:
    point = parse_bind("data:/x:nocopy")
    assert (point.type, point.name, point.copy_up, point.anonymous) == ("volume", "data", False, False)
    assert parse_bind("data:/x").mode == "z"


def test_anonymous_volume() -> None:
    point = parse_bind("/x")
    assert (point.type, point.anonymous, point.copy_up, point.mode) == ("volume", True, True, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "invalid mount config for type \"volume\": invalid mount path: 'x' mount path must be absolute"),
        ("/a:b", "invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute"),
        ("/a:/b:zz", "invalid mode: zz"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        (":/a", "invalid volume specification: ':/a'"),
        ("", "invalid volume specification: ''"),
        ("/a:/b:nocopy", "field VolumeOptions must not be specified"),
        ("v:/b:rshared", "field BindOptions must not be specified"),
        ("a:/", "invalid specification: destination can't be '/'"),
        ("-x:/b", 'create -x: "-x" includes invalid characters for a local volume name'),
    ],
)
def test_bad_binds(text: str, message: str) -> None:
    with pytest.raises(HafenError) as caught:
        parse_bind(text)
    assert message in caught.value.message
    assert isinstance(caught.value, System | InvalidArgument)


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (Mount(), 'invalid mount config for type "": field Target must not be empty'),
        (Mount(type="foo", target="/x"), 'invalid mount config for type "foo": mount type unknown'),
        (Mount(type="bind", target="/x"), 'invalid mount config for type "bind": field Source must not be empty'),
        (
            Mount(type="bind", target="/x", source="y"),
            "invalid mount config for type \"bind\": invalid mount path: 'y' mount path must be absolute",
        ),
        (
            Mount(type="bind", target="/x", source="/y", volume_options=VolumeOptions()),
            'VolumeOptions must not be specified on mount type "bind"',
        ),
        (
            Mount(type="volume", target="/x", bind_options=BindOptions()),
            'BindOptions must not be specified on mount type "volume"',
        ),
        (
            Mount(type="bind", target="/x", source="/y", bind_options=BindOptions(propagation="foo")),
            'invalid mount config for type "bind": invalid propagation mode: foo',
        ),
        (
            Mount(type="tmpfs", target="/x", source="y"),
            'invalid mount config for type "tmpfs": field Source must not be specified',
        ),
        (
            Mount(type="volume", target="/x", source="a"),
            "create a: volume name is too short, names should be at least two alphanumeric characters",
        ),
        (Mount(type="volume", target="/x", source="ab", volume_options=VolumeOptions(subpath="../x")), "subpath"),
    ],
)
def test_bad_mounts(mount: Mount, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_mount(mount)
    assert message in caught.value.message


def test_mounts() -> None:
    bind = parse_mount(Mount(type="bind", source="/y", target="/x", read_only=True))
    assert (bind.rw, bind.create_source, bind.propagation) == (False, False, "rprivate")
    options = TmpfsOptions(size_bytes=5, mode=0o700, options=[["exec"]])
    tmpfs = parse_mount(Mount(type="tmpfs", target="/x", tmpfs_options=options))
    assert tmpfs.tmpfs_options == ("noexec", "nosuid", "nodev", "size=5", "mode=700", "exec")
    assert parse_tmpfs("/t", "size=1m").from_tmpfs


def test_image_volumes() -> None:
    assert image_volume("/") is None
    for text, destination in (("/data/", "/data"), ("x", "/x"), ("./x/../y", "/y"), ("../x", "/x")):
        point = image_volume(text)
        assert point is not None
        assert point.destination == destination


def test_volumes_from() -> None:
    assert parse_volumes_from("c") == ("c", "rw")
    assert parse_volumes_from("c:ro") == ("c", "ro")
    with pytest.raises(InvalidArgument, match="invalid mode: q"):
        parse_volumes_from("c:q")
