"""Every operation of the Engine API on a real engine, at versions from 1.24 to the newest: each answer, good or bad,
has the status, the type and the shape that the definition of its version says."""

import pytest

from tests.harness.contract import ACCEPTED, definition
from tests.harness.engine import EngineProcess
from tests.root.acceptance.contractscenario import VERSIONS, Called, play_all

# What this engine does not have is refused by name: by the first part of the path, or the operation
REFUSED = {
    **{name: {501} for name in ("ImageBuild", "Session")},
    # these ask a registry, and here is none; a push tells it in its stream
    **{name: {200, 404, 500, 501} for name in ("ImagePush", "SystemAuth", "DistributionInspect")},
    "ImageSearch": {400, 500},
    **{name: {503, 501} for name in ("swarm", "nodes", "services", "tasks", "secrets", "configs")},
    "plugins": {404, 501},
    "VolumeUpdate": {503},  # for volumes of a cluster alone
    "ContainerAttachWebsocket": {404, 400},  # needs a WebSocket: tests/api/test_websocket.py
}
# Operations that 1.24 did not have yet, though 1.41 has: the nearest definition there is
AFTER_1_24 = {"BuildPrune", "DistributionInspect", "PluginList", "PluginCreate", "PluginPull", "GetPluginPrivileges",
              "Session"}  # fmt: skip
# More of what Docker 26.1 sends, too (`contractscenario` shows it): `problem` or `version problem`
LIVE_ACCEPTED = {
    "1.44 ImageInspect.ContainerConfig: unknown",  # gone in 1.45, but the definition for 1.44 here is 1.47's
    "1.24 SystemInfo.ExecutionDriver: unknown",  # gone in 1.25; 1.24's definition here is 1.41's
    # from before events had actors: never defined, sent until 1.51
    "SystemEvents.from: unknown",
    "SystemEvents.id: unknown",
    "SystemEvents.status: unknown",
    # from before there were sums, sent to whoever does not say `verbose`: docker-py reads them at any version
    "1.55 SystemDataUsage.BuildCache: unknown",
    "1.55 SystemDataUsage.Containers: unknown",
    "1.55 SystemDataUsage.Images: unknown",
    "1.55 SystemDataUsage.LayersSize: unknown",
    "1.55 SystemDataUsage.Volumes: unknown",
    "ContainerAttach: 404 as application/vnd.docker.raw-stream",  # the connection is taken over by then
    "ImageTag: status 200",  # nothing is done without a name to give
    "VolumeCreate: status 400",  # the definition has no status for a body that is no JSON
    "ImageCreate: status 501",  # pulling, and importing from a URL
}


@pytest.fixture(scope="module")
def called(engine: EngineProcess) -> list[Called]:
    return play_all(str(engine.socket))


def part(operation: str) -> str:
    """The operation where it is refused for itself, else the first part of its path."""
    return operation if operation in REFUSED else definition("1.55")["operations"][operation]["path"].split("/")[1]


def accepted(one: Called, problem: str) -> bool:
    if problem == f"{one.operation}: status {one.status}" and one.status in REFUSED.get(part(one.operation), ()):
        return True
    if (one.version, one.status) == ("1.24", 404) and one.operation in AFTER_1_24:
        return True
    return bool({problem, f"{one.version} {problem}"} & (ACCEPTED | LIVE_ACCEPTED))


@pytest.mark.parametrize("version", VERSIONS)
def test_answers_are_what_their_version_defines(version: str, called: list[Called]) -> None:
    problems = {
        problem for one in called if one.version == version for problem in one.problems if not accepted(one, problem)
    }
    assert not problems


@pytest.mark.parametrize("version", VERSIONS)
def test_every_operation_works_or_is_refused_by_name(version: str, called: list[Called]) -> None:
    statuses: dict[str, set[int]] = {name: set() for name in definition(VERSIONS[version])["operations"]}
    for one in called:
        if one.version == version:
            statuses[one.operation].add(one.status)
    for name, found in statuses.items():
        if name in AFTER_1_24 and version == "1.24":
            assert found == {404}, name
        elif part(name) in REFUSED and name != "PluginList":
            assert found
            assert found <= REFUSED[part(name)], name
        else:
            assert any(status < 300 for status in found), name


def test_what_is_accepted_is_there(called: list[Called]) -> None:
    found = {text for one in called for problem in one.problems for text in (problem, f"{one.version} {problem}")}
    assert found >= LIVE_ACCEPTED
