"""Images of several platforms: pulled, told of, saved, loaded, pushed and removed, each alone or all together."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.api import call
from tests.harness.engine import EngineProcess
from tests.harness.upstream import OCI_INDEX, Registry, layer, publish

PLATFORMS = ("amd64", "arm64", "s390x")
ARM = '{"os":"linux","architecture":"arm64"}'


@pytest.fixture
def name(engine: EngineProcess, registry: Registry) -> Iterator[str]:
    """An image of three platforms in the registry, of which arm64 and amd64 are pulled; amd64 last."""
    entries = []
    for number, architecture in enumerate(PLATFORMS):
        files = [layer({"both": b"the same"}), layer({"arch": architecture.encode()})]

        def compress(data: bytes, time: int = number) -> bytes:  # the same layer in three forms
            return gzip.compress(data, mtime=time)

        entry = publish(
            registry, "platforms", architecture, files, compress=compress, oci=True, architecture=architecture
        )
        entries.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    registry.manifest("platforms", "all", document)
    name = f"{registry.host}/platforms:all"
    for architecture in ("arm64", "amd64"):
        engine.docker("pull", "-q", "--platform", f"linux/{architecture}", name)
    yield name
    engine.docker("rmi", "-f", name, check=False)
    assert listed(engine, "platforms") == []
    assert engine.fsck() == []


def listed(engine: EngineProcess, part: str) -> list[str]:
    said = engine.docker("images", "-a", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    return [one for one in said if part in one or one == "<none>:<none>"]


def ask(engine: EngineProcess, target: str) -> tuple[int, object]:
    return call(engine, "GET", target, version="v1.50")


def architecture(engine: EngineProcess, name: str, *flags: str) -> str:
    return engine.docker("image", "inspect", *flags, "-f", "{{.Architecture}}", name).stdout.strip()


def archive(data: bytes) -> dict[str, Any]:
    """The JSON members of an image archive, by name."""
    found: dict[str, Any] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as members:
        for member in members:
            file = members.extractfile(member) if member.isfile() else None
            content = file.read() if file else b""
            if content[:1] in (b"{", b"["):
                found[member.name] = json.loads(content)
    return found


def test_one_name_stands_for_all_that_are_here(engine: EngineProcess, name: str) -> None:
    assert listed(engine, "platforms") == [name]
    assert architecture(engine, name) == "amd64"
    assert architecture(engine, name, "--platform", "linux/arm64") == "arm64"
    assert engine.hafen("image", "inspect", "--platform", "linux/arm64/v8", "-f", "{{.Architecture}}", name).stdout == (
        "arm64\n"
    )
    for command in (engine.docker, engine.hafen):
        failed = command("image", "inspect", "--platform", "linux/s390x", name, check=False)
        assert "was found but does not provide the specified platform (linux/s390x)" in failed.stderr
    assert len(engine.docker("history", "-q", "--platform", "linux/arm64", name).stdout.split()) == 0
    assert engine.docker("image", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    engine.docker("create", "--name", "platforms", "--platform", "linux/arm64", "--pull", "never", name, "x")
    assert engine.docker("ps", "-a", "--filter", "name=platforms", "--format", "{{.Image}}").stdout.strip() == name
    engine.docker("rm", "platforms")


def test_manifests_are_told(engine: EngineProcess, name: str) -> None:
    status, shown = ask(engine, f"/images/{name}/json?manifests=1")
    assert status == 200
    assert isinstance(shown, dict)
    told = [(one["Kind"], one["Available"], one["ImageData"]["Platform"]["architecture"]) for one in shown["Manifests"]]
    assert told == [("image", True, "amd64"), ("image", True, "arm64"), ("image", False, "s390x")]
    here, _, absent = shown["Manifests"]
    assert here["Size"]["Total"] == here["Size"]["Content"] + here["ImageData"]["Size"]["Unpacked"]
    assert here["ImageData"]["Size"]["Unpacked"] == 13
    assert absent["Size"] == {"Content": 0, "Total": 0}
    status, everything = ask(engine, "/images/json?manifests=1")
    assert status == 200
    assert isinstance(everything, list)
    (one,) = [one for one in everything if name in one["RepoTags"]]
    assert one["Manifests"] == shown["Manifests"]
    status, plain = ask(engine, "/images/json")
    assert isinstance(plain, list)
    assert all("Manifests" not in one for one in plain)


@pytest.mark.parametrize("query", ["platform=what", "platform=%7B%7D", 'platform=%7B"os":"linux"%7D'])
def test_bad_platforms_are_refused(engine: EngineProcess, name: str, query: str) -> None:
    for path in (f"/images/{name}/history", f"/images/{name}/get"):
        assert ask(engine, f"{path}?{query}".replace('"', "%22"))[0] == 400


def test_saved_and_loaded(engine: EngineProcess, name: str, registry: Registry) -> None:
    engine.docker("save", "-o", str(engine.base / "all.tar"), name)
    engine.hafen("save", "--platform", "linux/arm64", "-o", str(engine.base / "arm.tar"), name)
    whole, one = (archive((engine.base / file).read_bytes()) for file in ("all.tar", "arm.tar"))
    (entry,) = whole["index.json"]["manifests"]
    assert entry["mediaType"] == OCI_INDEX
    index = whole["blobs/" + entry["digest"].replace(":", "/")]
    assert [member["platform"]["architecture"] for member in index["manifests"]] == ["amd64", "arm64"]
    assert [item["RepoTags"] for item in whole["manifest.json"]] == [[name]]
    (item,) = one["manifest.json"]
    assert one[item["Config"]]["architecture"] == "arm64"
    failed = engine.docker("save", "--platform", "linux/s390x", name, check=False)
    assert "does not provide the specified platform (linux/s390x)" in failed.stderr
    engine.docker("rmi", name)
    assert engine.docker("load", "-i", str(engine.base / "all.tar")).stdout == f"Loaded image: {name}\n"
    assert listed(engine, "platforms") == [name]
    assert (architecture(engine, name), architecture(engine, name, "--platform", "linux/arm64")) == ("amd64", "arm64")
    engine.docker("rmi", name)
    for command in (engine.docker, engine.hafen):
        assert name in command("load", "--platform", "linux/arm64", "-i", str(engine.base / "all.tar")).stdout
        assert architecture(engine, name) == "arm64"
        engine.docker("rmi", name)
        for file in ("all.tar", "arm.tar"):
            failed = command("load", "--platform", "linux/s390x", "-i", str(engine.base / file), check=False)
            assert "no image in it is for linux/s390x" in failed.stderr
    assert name in engine.docker("load", "-i", str(engine.base / "arm.tar")).stdout
    assert architecture(engine, name) == "arm64"


def test_pushed_alone_and_all_together(engine: EngineProcess, name: str, registry: Registry) -> None:
    target = f"{registry.host}/elsewhere"
    engine.docker("tag", name, f"{target}:one")
    engine.docker("push", "--platform", "linux/arm64", f"{target}:one")
    document = json.loads(registry.call("GET", "/v2/elsewhere/manifests/one").read())
    arm = json.loads(registry.call("GET", "/v2/platforms/manifests/arm64").read())
    assert document == arm
    engine.hafen("push", "-q", "--platform", "linux/amd64", f"{target}:one")
    assert json.loads(registry.call("GET", "/v2/elsewhere/manifests/one").read()) != arm
    failed = engine.docker("push", "--platform", "linux/s390x", f"{target}:one", check=False)
    assert "does not provide the specified platform (linux/s390x)" in failed.stderr
    engine.docker("pull", "-q", "--platform", "linux/s390x", name)
    engine.docker("tag", name, f"{target}:all")
    engine.docker("push", f"{target}:all")
    pushed = registry.call("GET", "/v2/elsewhere/manifests/all").headers["Docker-Content-Digest"]
    assert pushed == registry.call("GET", "/v2/platforms/manifests/all").headers["Docker-Content-Digest"]
    engine.docker("rmi", f"{target}:one", f"{target}:all")


def on_disk(engine: EngineProcess, name: str) -> int:
    status, usage = call(engine, "GET", "/system/df")
    assert status == 200
    assert isinstance(usage, dict)
    (size,) = [one["Size"] for one in usage["Images"] if name in one["RepoTags"]]
    assert isinstance(size, int)
    return size


def test_one_platform_is_removed(engine: EngineProcess, name: str) -> None:
    both = on_disk(engine, name)
    engine.docker("rmi", "--platform", "linux/amd64", name)
    assert on_disk(engine, name) < both
    assert architecture(engine, name) == "arm64"
    failed = engine.docker("rmi", "--platform", "linux/amd64", name, check=False)
    assert "does not provide the specified platform (linux/amd64)" in failed.stderr
    engine.docker("create", "--name", "platforms", "--platform", "linux/arm64", name, "x")
    failed = engine.hafen("rmi", "--platform", "linux/arm64", name, check=False)
    assert "image is being used by stopped container" in failed.stderr
    engine.docker("rm", "platforms")
    engine.hafen("rmi", "--platform", "linux/arm64", name)
    assert listed(engine, "platforms") == []
