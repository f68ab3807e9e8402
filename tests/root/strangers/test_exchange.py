"""Images go between podman, buildah, skopeo, two registries, archives and our engine: digests stay, everything runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess, busybox_tar
from tests.harness.strangers import Strangers
from tests.root.strangers.conftest import Place

DOCKERFILE = """
FROM localhost/base:1
RUN echo built by a stranger > /made && mkdir -p /a/b && ln -s ../made /a/link
RUN rm /etc/group
ENV WHO=stranger
WORKDIR /a
CMD ["cat", "/a/link"]
"""
SAID = "built by a stranger\n"


@pytest.fixture(scope="module")
def built(place: Place) -> str:
    """An image of three layers in the strangers' storage, by buildah; its name there."""
    place.strangers.podman("import", "-c", 'CMD ["sh"]', "-", "localhost/base:1", stdin=busybox_tar())
    context = place.strangers.folder / "home"
    (context / "Dockerfile").write_text(DOCKERFILE)
    place.strangers.buildah("bud", "--layers", "-t", "localhost/built:1", str(context))
    return "localhost/built:1"


def digest(strangers: Strangers, source: str) -> str:
    """The digest of the manifest that lies there."""
    return "sha256:" + hashlib.sha256(strangers.skopeo("inspect", "--raw", source).stdout.encode()).hexdigest()


def came_as(engine: EngineProcess, name: str, manifest: str) -> bool:
    """Whether our engine has the image from there under this digest."""
    found = json.loads(engine.docker("image", "inspect", "-f", "{{json .RepoDigests}}", name).stdout)
    return f"{name.rpartition(':')[0]}@{manifest}" in found


def identity(engine: EngineProcess, name: str) -> str:
    return engine.docker("image", "inspect", "-f", "{{.Id}}", name).stdout.strip()


def pushed(said: str) -> str:
    """The digest that `docker push` tells."""
    return said.splitlines()[-1].split()[2]


def test_round_and_round_with_one_digest(place: Place, built: str, host: str, tmp_path: Path) -> None:
    """Storage, registry, layout, registry, our engine, registry, storage."""
    engine, strangers = place.engine, place.strangers
    strangers.skopeo("copy", f"containers-storage:{built}", f"docker://{host}/round/one:1")
    first = digest(strangers, f"docker://{host}/round/one:1")
    strangers.skopeo("copy", f"docker://{host}/round/one:1", f"oci:{tmp_path}/layout:1")
    assert digest(strangers, f"oci:{tmp_path}/layout:1") == first
    strangers.skopeo("copy", f"oci:{tmp_path}/layout:1", f"docker://{host}/round/two:1")
    assert digest(strangers, f"docker://{host}/round/two:1") == first

    engine.docker("pull", "-q", f"{host}/round/two:1")
    assert came_as(engine, f"{host}/round/two:1", first)
    assert engine.docker("run", "--rm", f"{host}/round/two:1").stdout == SAID
    engine.docker("tag", f"{host}/round/two:1", f"{host}/round/three:1")
    assert pushed(engine.docker("push", f"{host}/round/three:1").stdout) == first
    kept = identity(engine, f"{host}/round/two:1")
    engine.docker("rmi", f"{host}/round/two:1", f"{host}/round/three:1")

    strangers.podman("pull", "-q", f"{host}/round/three:1")
    assert f"{host}/round/three@{first}" in strangers.podman("image", "inspect", f"{host}/round/three:1").stdout
    assert strangers.podman("image", "inspect", "-f", "{{.Id}}", f"{host}/round/three:1").stdout.strip() == kept[7:]
    assert strangers.podman("run", "--rm", f"{host}/round/three:1").stdout == SAID
    strangers.podman("rmi", f"{host}/round/three:1")


@pytest.mark.parametrize("options", [(), ("--format", "v2s2"), ("--compression-format", "zstd")], ids=" ".join)
def test_our_engine_runs_what_podman_pushed(place: Place, built: str, host: str, options: tuple[str, ...]) -> None:
    name = f"{host}/podman/app:{len(options)}{options[-1] if options else 'plain'}"
    place.strangers.podman("push", "-q", *options, built, f"docker://{name}")
    place.engine.docker("pull", "-q", name)
    assert place.engine.docker("run", "--rm", name).stdout == SAID
    gone = place.engine.docker("run", "--rm", name, "sh", "-c", "pwd; echo $WHO; ls /etc").stdout
    assert gone == "/a\nstranger\nhostname\nhosts\nmtab\npasswd\nresolv.conf\n"
    assert came_as(place.engine, name, digest(place.strangers, f"docker://{name}"))
    place.engine.docker("rmi", name)


def test_podman_runs_what_our_engine_pushed(place: Place, host: str) -> None:
    """A commit on an import: layers that never were a blob before."""
    engine, strangers, name = place.engine, place.strangers, f"{host}/ours/app:1"
    engine.docker("run", "--name", "maker", "busybox", "sh", "-c", "echo made here > /made; rm /etc/group")
    change = 'CMD ["sh", "-c", "cat /made; ls /etc/group"]'
    engine.docker("commit", "-c", change, "maker", name)
    engine.docker("rm", "maker")
    told = pushed(engine.docker("push", name).stdout)
    assert digest(strangers, f"docker://{name}") == told
    ran = strangers.podman("run", "--rm", name, check=False)
    assert (ran.stdout, ran.code) == ("made here\n", 1), ran
    assert strangers.podman("image", "inspect", "-f", "{{.Digest}}", name).stdout.strip() == told
    strangers.podman("rmi", name)
    engine.docker("rmi", name)


def test_a_list_of_platforms(place: Place, built: str, host: str) -> None:
    """An index that podman made and pushed; each takes its own."""
    engine, strangers, name = place.engine, place.strangers, f"{host}/many/app:1"
    strangers.buildah("from", "--name", "foreign", "--arch", "arm64", "scratch")
    strangers.buildah("config", "--cmd", "nothing", "foreign")
    strangers.buildah("commit", "--rm", "foreign", "localhost/foreign:1")
    listed = f"localhost/list{host.rpartition(':')[2]}"
    strangers.podman("manifest", "create", listed)
    for member in (built, "localhost/foreign:1"):
        strangers.podman("manifest", "add", listed, f"containers-storage:{member}")
    strangers.podman("manifest", "push", "--all", listed, f"docker://{name}")
    engine.docker("pull", "-q", name)
    assert came_as(engine, name, digest(strangers, f"docker://{name}"))
    assert engine.docker("run", "--rm", name).stdout == SAID
    engine.docker("rmi", name)


@pytest.mark.parametrize("command", ["docker", "hafen"])
def test_archives_of_ours(place: Place, built: str, command: str, tmp_path: Path) -> None:
    """What we save, others take for a docker-archive and for an OCI layout, with our image id."""
    engine, strangers, name = place.engine, place.strangers, "localhost/saved:1"
    engine.docker("tag", "busybox", name)
    call = getattr(engine, command)
    call("save", "-o", f"{tmp_path}/saved.tar", name)
    for transport in ("docker-archive", "oci-archive"):
        strangers.skopeo("copy", f"{transport}:{tmp_path}/saved.tar", f"containers-storage:{name}")
        found = strangers.podman("image", "inspect", "-f", "{{.Id}}", name).stdout.strip()
        assert found == identity(engine, name)[7:], transport
        assert strangers.podman("run", "--rm", name, "echo", transport).stdout == f"{transport}\n"
        strangers.podman("rmi", name)
    engine.docker("rmi", name)
    call("load", "-i", f"{tmp_path}/saved.tar")
    assert identity(engine, name) == identity(engine, "busybox")
    engine.docker("rmi", name)


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_archives_of_strangers(place: Place, built: str, form: str, tmp_path: Path) -> None:
    engine, strangers = place.engine, place.strangers
    archive = tmp_path / "theirs.tar"
    strangers.podman("save", "-q", "--format", form, "-o", str(archive), built)
    loaded = engine.docker("load", "-q", "-i", str(archive)).stdout.split()[-1]
    assert identity(engine, loaded)[7:] == strangers.podman("image", "inspect", "-f", "{{.Id}}", built).stdout.strip()
    assert engine.docker("run", "--rm", loaded).stdout == SAID
    engine.docker("save", "-o", f"{tmp_path}/back.tar", loaded)
    strangers.skopeo("copy", f"docker-archive:{tmp_path}/back.tar", "containers-storage:localhost/back:1")
    assert strangers.podman("run", "--rm", "localhost/back:1").stdout == SAID
    strangers.podman("rmi", "localhost/back:1")
    engine.docker("rmi", loaded)


def test_without_a_password(place: Place, built: str) -> None:
    host = place.hosts["hafen"]
    place.strangers.skopeo("logout", host)
    try:
        refused = place.strangers.skopeo("inspect", "--raw", f"docker://{host}/round/one:1", check=False)
        assert refused.code != 0
        assert "authentication required" in refused.stderr
    finally:
        place.strangers.skopeo("login", "-u", "joe", "--password-stdin", host, stdin="secret")
