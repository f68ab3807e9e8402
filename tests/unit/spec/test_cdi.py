"""CDI files: what is read, and what is refused."""

from typing import Any

import pytest

from hafen.errors import HafenError
from hafen.spec import cdi

NODE = {"path": "/dev/x"}


def document(version: str = "0.6.0", **changes: Any) -> dict[str, Any]:
    device = {"name": "one", "containerEdits": {"deviceNodes": [NODE]}}
    return {"cdiVersion": version, "kind": "vendor.com/class", "devices": [device], **changes}


def test_a_whole_one() -> None:
    edits = {
        "env": ["A=b"], "additionalGids": [5],
        "mounts": [{"hostPath": "/h", "containerPath": "/c", "options": ["ro", "bind"]}],
        "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true"], "timeout": 3}],
        "deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/null", "permissions": "rw", "fileMode": 438}],
    }  # fmt: skip
    spec = cdi.read(document("0.7.0", containerEdits=edits, annotations={"a": "b"}))
    assert spec.kind == "vendor.com/class"
    assert spec.container_edits.hooks[0] == cdi.Hook("createContainer", "/bin/true", ("true",), (), 3)
    assert spec.container_edits.device_nodes[0].host_path == "/dev/null"
    assert spec.container_edits.additional_gids == (5,)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": "0.9.0"}, 'invalid version "0.9.0"'),
        ({"kind": "vendor"}, 'invalid kind "vendor"'),
        ({"kind": "1/class"}, "invalid kind"),
        ({"devices": []}, "invalid spec, no devices"),
        ({"devices": [{"name": "a"}, {"name": "a"}]}, 'multiple device "a"'),
        ({"devices": [{"name": "a b"}]}, 'invalid device name "a b"'),
        ({"devices": [{"name": 5}]}, "Expected `str`, got `int`"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"containerEdits": {"env": ["=x"]}}, 'invalid environment variable "=x"'),
        ({"containerEdits": {"hooks": [{"hookName": "never", "path": "/x"}]}}, 'invalid hook "never"'),
        ({"containerEdits": {"mounts": [{"hostPath": "", "containerPath": "/x"}]}}, "invalid mount"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "permissions": "z"}]}}, "invalid device node"),
        ({"containerEdits": {"intelRdt": {}}}, "intelRdt and netDevices of CDI specifications are not implemented"),
        ({"containerEdits": {"additionalGids": [1]}}, "at least v0.7.0 but is v0.6.0"),
        ({"version": "0.5.0", "annotations": {"a": "b"}}, "at least v0.6.0"),
        ({"version": "0.4.0", "devices": [{"name": "0"}]}, "at least v0.5.0"),
        ({"version": "0.3.0", "containerEdits": {"mounts": [{"hostPath": "/", "containerPath": "/x", "type": "y"}]}},
         "at least v0.4.0"),
    ],
)  # fmt: skip
def test_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(HafenError, match=text):
        cdi.read(document(**changes))


def test_what_is_no_object() -> None:
    values: tuple[object, ...] = (None, [], "x", {})
    for value in values:
        with pytest.raises(HafenError, match="invalid CDI Spec"):
            cdi.read(value)
