"""The Engine API's structs: written as Go writes them, read as Go reads them, and kept without loss."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafen.errors import InvalidArgument
from hafen.spec.wire import gojson
from hafen.spec.wire.container import ContainerConfig, ContainerInspect, CreateRequest
from hafen.spec.wire.hostconfig import HostConfig, Mount, Resources
from hafen.spec.wire.network import EndpointSettings, PortBinding
from hafen.spec.wire.system import SystemInfo


def plain(value: object) -> object:
    return json.loads(gojson.encode(value))


def test_what_docker_always_writes_is_written_and_what_it_omits_is_not() -> None:
    config = plain(ContainerConfig())
    assert isinstance(config, dict)
    assert config["Env"] is None
    assert config["Labels"] == {}
    assert config["Hostname"] == ""
    assert config["Tty"] is False
    assert {"Healthcheck", "ExposedPorts", "StopSignal", "Shell", "StopTimeout"}.isdisjoint(config)
    host = plain(HostConfig())
    assert isinstance(host, dict)
    assert (host["Binds"], host["ConsoleSize"], host["MemorySwappiness"]) == (None, [0, 0], None)
    assert {"Mounts", "Tmpfs", "Init", "Runtime"}.isdisjoint(host)
    assert plain(HostConfig(binds=[], init=False)) == {**host, "Binds": [], "Init": False}


def test_keys_are_read_in_any_case_and_unknown_ones_ignored() -> None:
    text = b'{"image":"a","HOSTCONFIG":{"memory":5,"Nope":{"x":[1]}},"labels":{"Key":"v","key":"w"},"Zzz":1}'
    request = gojson.decode(text, CreateRequest)
    assert request.image == "a"
    assert request.host_config
    assert request.host_config.memory == 5
    assert request.labels == {"Key": "v", "key": "w"}  # keys of maps are data


def test_null_is_absent_but_inside_maps_and_lists_it_is_a_value() -> None:
    text = b'{"Env":null,"Labels":null,"HostConfig":{"PortBindings":{"80/tcp":null},"Mounts":null,"PidsLimit":null}}'
    request = gojson.decode(text, CreateRequest)
    assert (request.env, request.labels) == (None, {})
    assert request.host_config == HostConfig(port_bindings={"80/tcp": None})
    assert gojson.decode(b'{"Env":[null]}', CreateRequest).env == [""]


def test_command_and_entrypoint_may_be_one_string() -> None:
    request = gojson.decode(b'{"Cmd":"ls -l","Entrypoint":["sh"],"Shell":"x"}', CreateRequest)
    assert (request.cmd, request.entrypoint, request.shell) == (["ls -l"], ["sh"], ["x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"Image":5}', "json: cannot unmarshal number into Go struct field CreateRequest.Image of type string"),
        (b'{"Tty":"x"}', "cannot unmarshal string into Go struct field CreateRequest.Tty of type bool"),
        (b'{"HostConfig":{"Memory":1.5}}', "cannot unmarshal number 1.5 into Go struct field"),
        (b'{"HostConfig":{"Memory":true}}', "cannot unmarshal bool into Go struct field"),
        (b'{"HostConfig":{"Memory":9223372036854775808}}', "number 9223372036854775808 into"),
        (b'{"HostConfig":{"BlkioWeight":-1}}', "HostConfig.BlkioWeight of type uint16"),
        (b'{"HostConfig":{"Binds":{}}}', "HostConfig.Binds of type []string"),
        (b'{"Labels":{"a":1}}', "CreateRequest.Labels of type string"),
        (b'{"Cmd":true}', "CreateRequest.Cmd of type string"),
        (b"[]", "json: cannot unmarshal array into Go value of type CreateRequest"),
        (b"{", "invalid JSON: unexpected EOF"),
        (b"", "invalid JSON: got EOF while reading request body"),
        (b"{} {}", "unexpected content after JSON"),
        (b'{"Image":"\xff"}', "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
    ],
)
def test_wrong_types_are_refused_in_go_s_words(text: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        gojson.decode(text, CreateRequest)
    assert message in caught.value.message


_TEXT = st.text(max_size=8)
_CONFIGS = st.builds(
    HostConfig,
    binds=st.none() | st.lists(_TEXT, max_size=2),
    memory=st.integers(-(1 << 63), (1 << 63) - 1),
    memory_swappiness=st.none() | st.integers(0, 100),
    oom_kill_disable=st.none() | st.booleans(),
    port_bindings=st.none()
    | st.dictionaries(_TEXT, st.none() | st.lists(st.builds(PortBinding, host_ip=_TEXT), max_size=2), max_size=2),
    tmpfs=st.dictionaries(_TEXT, _TEXT, max_size=2),
    mounts=st.lists(st.builds(Mount, type=_TEXT, read_only=st.booleans()), max_size=2),
    init=st.none() | st.booleans(),
    io_maximum_iops=st.integers(0, (1 << 64) - 1),
)


@given(_CONFIGS)
def test_what_is_kept_comes_back(config: HostConfig) -> None:
    assert gojson.restore(gojson.encode(config), HostConfig) == config
    assert gojson.decode(gojson.encode(config), HostConfig) == config


@pytest.mark.parametrize("cls", [CreateRequest, ContainerInspect, SystemInfo, Resources, EndpointSettings])
def test_the_empty_value_comes_back(cls: type) -> None:
    assert gojson.restore(gojson.encode(cls()), cls) == cls()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Image", "cmd", "HostConfig", "Mounts", "Labels", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_JSON)
def test_any_json_is_read_or_refused(value: object) -> None:
    try:
        gojson.decode(json.dumps(value).encode(), CreateRequest)
    except InvalidArgument as error:
        assert error.message  # noqa: PT017 - either way is right
