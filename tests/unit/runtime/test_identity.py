"""Users and groups as `docker run -u` resolves them, environment, capability masks."""

import pytest

from hafen.errors import InvalidArgument
from hafen.kernel import caps
from hafen.runtime import identity
from hafen.runtime.identity import Identity
from hafen.spec.runtime_config import Capabilities, User

PASSWD = identity.parse_passwd(
    "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken:x\ndb:x:70:71:Data:/var/db:/bin/sh\n5:x:1005:1005::/five:\n"
)
GROUP = identity.parse_group("root:x:0:\ndb:x:71:\ndisk:x:6:root,db\nlogs:x:90:db\nno\n")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (User(name="db"), Identity(70, 71, (71, 6, 90), "/var/db")),
        (User(name="70"), Identity(70, 71, (71, 6, 90), "/var/db")),
        (User(name="db:disk"), Identity(70, 6, (6,), "/var/db")),
        (User(name="db:4242"), Identity(70, 4242, (4242,), "/var/db")),
        (User(name="1234"), Identity(1234, 0, (0,), "/")),
        (User(name="1234:77"), Identity(1234, 77, (77,), "/")),
        (User(name="5"), Identity(1005, 1005, (1005,), "/five")),  # a name wins over a number
        (User(name=":logs"), Identity(0, 90, (90,), "/root")),
        (User(name="db", group_add=("root", "1000")), Identity(70, 71, (71, 6, 90, 0, 1000), "/var/db")),
        (User(uid=70, gid=71, group_add=("logs",)), Identity(70, 71, (71, 6, 90), "/var/db")),
    ],
)
def test_identify(user: User, expected: Identity) -> None:
    assert identity.identify(user, PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    ("user", "words"),
    [
        (User(name="foo"), "unable to find user foo: no matching entries in passwd file"),
        (User(name="root:foo"), "unable to find group foo: no matching entries in group file"),
        (User(group_add=("foo",)), "Unable to find group foo: no matching entries in group file"),
        (User(name="2147483648"), "uids and gids must be in range 0-2147483647"),
        (User(name="-1"), "unable to find user -1: no matching entries in passwd file"),
    ],
)
def test_unknown(user: User, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        identity.identify(user, PASSWD, GROUP)
    assert caught.value.message == words


def test_environment() -> None:
    assert identity.environment(("A=1", "B=", "A=2", "nonsense", "=x"), "/h") == ["A=2", "B=", "HOME=/h"]
    assert identity.environment(("HOME=/mine",), "/h") == ["HOME=/mine"]
    assert identity.environment(("HOME=",), "/h") == ["HOME=/h"]


def test_capabilities_that_the_runtime_lacks_are_named() -> None:
    masks = identity.capability_masks(Capabilities(bounding=("CAP_CHOWN", "CAP_SYS_RESOURCE"), ambient=("CAP_CHOWN",)))
    assert masks is not None
    have = caps.mask(["CAP_CHOWN", "CAP_KILL"])
    reduced, warning = identity.available(masks, have)
    assert reduced.bounding == caps.mask(["CAP_CHOWN"])
    assert "CAP_SYS_RESOURCE" in warning
    assert identity.available(reduced, have) == (reduced, "")
