"""Mount options to attributes."""

from hafen.kernel import consts as k
from hafen.runtime.options import parse, split_layers


def test_later_options_win() -> None:
    assert parse(("ro", "rw")).set == 0
    assert parse(("ro", "rw")).clear == k.MOUNT_ATTR_RDONLY
    assert parse(("noatime", "strictatime")).set == k.MOUNT_ATTR_STRICTATIME
    assert parse(("strictatime", "noatime")).set == k.MOUNT_ATTR_NOATIME


def test_recursive_attributes_are_apart() -> None:
    options = parse(("rbind", "rro", "nosuid"))
    assert (options.bind, options.recursive) == (True, True)
    assert (options.set, options.set_all) == (k.MOUNT_ATTR_NOSUID, k.MOUNT_ATTR_RDONLY)


def test_propagation_keeps_its_order() -> None:
    assert parse(("rslave", "shared")).propagation == ((k.MS_SLAVE, True), (k.MS_SHARED, False))


def test_the_rest_goes_to_the_file_system() -> None:
    assert parse(("size=64k", "mode=755", "volatile", "defaults")).parameters == (
        ("size", "64k"), ("mode", "755"), ("volatile", None),
    )  # fmt: skip


def test_layers_with_escapes() -> None:
    assert split_layers(r"/a:/b\:c:/d") == ["/a", "/b:c", "/d"]
