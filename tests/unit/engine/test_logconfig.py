"""Which log driver and options a container gets, and what they make of its names."""

import pytest

from hafen.engine import logconfig
from hafen.engine.records import Record
from hafen.errors import HafenError
from hafen.logs.drivers import DRIVERS
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.hostconfig import HostConfig, LogConfig

Options = dict[str, str]


@pytest.mark.parametrize(
    ("wanted", "default", "found"),
    [
        (("", {}), ("local", {}), ("", {})),
        (("", {"max-size": "1k"}), ("local", {"max-file": "2"}), ("", {"max-size": "1k", "max-file": "2"})),
        (("", {"tag": "x"}), ("local", {}), ("json-file", {"tag": "x"})),  # means Docker's default
        (("", {}), ("json-file", {"tag": "x"}), ("json-file", {"tag": "x"})),
        (("json-file", {"tag": "y"}), ("json-file", {"tag": "x"}), ("json-file", {"tag": "y"})),
        (("local", {}), ("json-file", {"tag": "x"}), ("local", {})),
        (("syslog", {}), ("local", {"cache-max-size": "1m"}), ("syslog", {"cache-max-size": "1m"})),
    ],
)
def test_defaults(wanted: tuple[str, Options], default: tuple[str, Options], found: tuple[str, Options]) -> None:
    given = logconfig.completed(
        LogConfig(type=wanted[0], config=wanted[1]), LogConfig(type=default[0], config=default[1]), DRIVERS
    )
    assert (given.type, given.config) == found


def record(**options: str) -> Record:
    return Record(
        id="0123456789ab" + "c" * 52,
        name="name",
        created_ns=0,
        image="busybox",
        image_id="sha256:5198839bcb536e45",
        config=ContainerConfig(env=["E=1", "PATH=/bin"], labels={"a": "b"}),
        host_config=HostConfig(log_config=LogConfig(type="json-file", config=options)),
        path="sh",
        args=("-c", "echo x"),
        snapshotter="overlay",
    )


@pytest.mark.parametrize(
    ("template", "tag"),
    [  # as Docker 26.1 renders them
        ("", "0123456789ab"),
        ("{{.FullID}}", "0123456789ab" + "c" * 52),
        ("{{.Name}}/{{.ImageName}}", "name/busybox"),
        ("{{.ContainerName}}", "/name"),
        ("{{.ImageID}} {{.ImageFullID}}", "sha256:51988 sha256:5198839bcb536e45"),
        ("{{.DaemonName}}", "docker"),
        ("{{.Command}}", "sh -c echo x"),
        ("{{.ContainerArgs}}", "[-c echo x]"),
        ('{{join .ContainerArgs ","}}', "-c,echo x"),
        ("{{json .ContainerLabels}}", '{"a":"b"}'),
        ('{{index .ContainerLabels "a"}}', "b"),
        ("{{.ContainerEnv}}", "[E=1 PATH=/bin]"),
        ("{{upper .Name}}", "NAME"),
        ("x{{if .Name}}y{{end}}", "xy"),
        ('{{with split .ImageName ":"}}{{index . 0}}{{end}}', "busybox"),
    ],
)
def test_tags(template: str, tag: str) -> None:
    log = logconfig.of_spawn(record(tag=template), "/logs")
    assert log.source["tag"] == tag
    assert log.attributes == ({"tag": tag} if template else {})


def test_a_tag_that_makes_no_sense_is_an_error_of_the_start() -> None:
    with pytest.raises(HafenError, match="failed to initialize logging driver: template: log-tag:1: unclosed action"):
        logconfig.of_spawn(record(tag="{{"), "/logs")
