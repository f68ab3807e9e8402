"""The same command on the same engine gives the same output and exit code as the real docker command."""

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.engine import EngineProcess

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command to compare with"),
]

# HAFEN_TEST_HOST names another engine to run both commands against (a real dockerd, say).
FOREIGN = os.environ.get("HAFEN_TEST_HOST", "")
P = "hcli"  # every name made here begins with it


class Result(NamedTuple):
    code: int
    out: str
    err: str


def neutral(result: Result) -> Result:
    """The program's own name is where they must differ."""
    return Result(result.code, result.out.replace("hafen", "docker"), result.err.replace("hafen", "docker"))


class Both:
    """Runs `docker` and `hafen` on one engine, in one directory."""

    def __init__(self, address: str, directory: Path) -> None:
        self.directory = directory
        self.environment = {**os.environ, "DOCKER_HOST": address, "DOCKER_CONFIG": str(directory)}
        self.environment.pop("HAFEN_HOST", None)
        # docker asks for the version that it negotiated, hafen for the newest: their answers differ
        negotiated = self.docker("version", "-f", "{{.Client.APIVersion}}").out.strip()
        self.environment["DOCKER_API_VERSION"] = negotiated

    def docker(self, *arguments: str, stdin: bytes = b"") -> Result:
        return neutral(self._run(["docker", *arguments], stdin))

    def hafen(self, *arguments: str, stdin: bytes = b"") -> Result:
        return neutral(self._run([sys.executable, "-m", "hafen.cli.main", *arguments], stdin))

    def _run(self, command: list[str], stdin: bytes) -> Result:
        done = subprocess.run(
            command, input=stdin, capture_output=True, env=self.environment, cwd=self.directory, timeout=60, check=False
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    directory = tmp_path_factory.mktemp("cli")
    if FOREIGN:
        yield from furnished(Both(FOREIGN, directory))
        return
    with EngineProcess(directory / "engine") as engine:
        engine.load_busybox()
        yield from furnished(Both(engine.address, directory))


def furnished(both: Both) -> Iterator[Both]:
    """A running container, a stopped one, a network, a volume and a second tag."""
    run = f"run -d --name {P}-up -l a=b -l c.d-e=f -e X=1 -v {P}-vol:/v busybox"
    both.docker("volume", "create", f"{P}-vol")
    both.docker("tag", "busybox", f"{P}-image:one")
    assert both.docker(*run.split(), "sh", "-c", "echo out; echo err >&2; echo x >/new; exec sleep 1000").code == 0
    both.docker(*f"run --name {P}-down busybox sh -c".split(), "echo gone; exit 3")
    both.docker(*f"create --name {P}-new -it busybox".split())
    try:
        yield both
    finally:
        both.docker("rm", "-f", "-v", f"{P}-up", f"{P}-down", f"{P}-new", f"{P}-tmp")
        both.docker("volume", "rm", f"{P}-vol")
        both.docker("rmi", f"{P}-image:one", f"{P}-image:two")


SAME = [
    "ps -a",
    "ps",
    "ps -q",
    "ps -aq --no-trunc",
    "ps -a --no-trunc",
    "ps -as",
    "ps -n 1",
    "ps -l",
    "ps -a -f status=exited",
    f"ps -a -f name={P}-down --format '{{{{.Names}}}}: {{{{.Status}}}}'",
    "ps -a --format json",
    "ps -a --format '{{json .}}'",
    "ps -a --format 'table {{.Names}}\\t{{.Image}}\\t{{.Label \"a\"}}'",
    "ps -a --format 'table {{.Names}}\\t{{.Label \"c.d-e\"}}'",
    "ps -a --format '{{.ID}} {{.Mounts}} {{.Networks}} {{.LocalVolumes}} {{.Labels}}'",
    "ps -a --format '{{.Ports}} {{.State}} {{.CreatedAt}}'",
    "ps -a --format '{{if eq .State \"running\"}}up{{else}}down{{end}}'",
    "ps --format '{{.Nonsense}}'",
    "ps --format '{{.ID'",
    "ps --format '{{nonsense .ID}}'",
    "ps -f nonsense",
    "ps -f nonsense=x",
    "ps extra",
    "container ls -a",
    "container list -q",
    "images",
    "images -q",
    "images --digests",
    "images --no-trunc",
    "images busybox",
    "images nosuch",
    f"image ls -f reference={P}-image",
    "images --format '{{.Repository}}:{{.Tag}} {{.Size}} {{.CreatedSince}} {{.ID}}'",
    "images --format 'table {{.Repository}}\\t{{.Tag}}'",
    "images --format json",
    "history busybox",
    "history --no-trunc busybox",
    "history -q busybox",
    "history -H=false busybox",
    "history --format '{{.CreatedBy}}' busybox",
    "network ls",
    "network ls -q --no-trunc",
    "network ls --format '{{.Name}} {{.Driver}} {{.Scope}} {{.Internal}} {{.IPv6}}'",
    "network inspect bridge",
    "network inspect -f '{{.Name}} {{.Driver}} {{(index .IPAM.Config 0).Subnet}}' bridge",
    "network inspect nosuch",
    "volume ls",
    "volume ls -q",
    "volume ls --format '{{.Name}} {{.Driver}} {{.Mountpoint}} {{.Labels}}'",
    f"volume inspect {P}-vol",
    "volume inspect nosuch",
    f"inspect {P}-up",
    f"inspect {P}-up {P}-down",
    f"inspect -s {P}-up",
    f"inspect {P}-up nosuch busybox",
    "inspect busybox",
    "image inspect busybox",
    "image inspect nosuch",
    "container inspect nosuch",
    f"inspect --type image {P}-up",
    f"inspect --type volume {P}-vol",
    f"inspect -f '{{{{.State.Status}}}} {{{{.Config.Env}}}} {{{{.Name}}}}' {P}-up",
    f"inspect -f '{{{{json .Config.Labels}}}}' {P}-up",
    f"inspect -f '{{{{.Config.Labels.a}}}} {{{{index .Config.Labels \"c.d-e\"}}}} {{{{.Config.Labels.none}}}}' {P}-up",
    f"inspect -f '{{{{range .Mounts}}}}{{{{.Type}}}} {{{{.Destination}}}} {{{{.RW}}}}{{{{end}}}}' {P}-up",
    f"inspect -f '{{{{range $k, $v := .NetworkSettings.Networks}}}}{{{{$k}}}}={{{{$v.IPAddress}}}}{{{{end}}}}' {P}-up",
    f"inspect -f '{{{{with .Config}}}}{{{{.Image | upper}}}} {{{{join .Cmd \",\"}}}}{{{{end}}}}' {P}-up",
    f"inspect -f '{{{{.Id}}}} {{{{.Created}}}} {{{{.State.Pid}}}} {{{{.HostConfig.Memory}}}}' {P}-up",
    f"inspect -f '{{{{if and .State.Running (not .State.Paused)}}}}yes{{{{end}}}}' {P}-up",
    f"inspect -f '{{{{printf \"%-10s|%5d|%q\" .Name .State.Pid .Path}}}}' {P}-up",
    f"inspect -f '{{{{println .Name}}}}{{{{slice .Id 0 5}}}}{{{{ .Path -}}}}  x' {P}-up",
    f"inspect -f '{{{{.Nonsense}}}}' {P}-up",
    f"inspect -f '{{{{.State.Nonsense}}}}' {P}-up",
    f"inspect -f '{{{{' {P}-up",
    f"inspect -f '{{{{index .Config.Cmd 99}}}}' {P}-up",
    f"logs {P}-up",
    f"logs {P}-down",
    f"logs -n 1 {P}-down",
    f"logs -t {P}-down",
    f"logs {P}-new",
    "logs nosuch",
    f"top {P}-up",
    f"top {P}-up -o pid,args",
    f"top {P}-down",
    "top nosuch",
    f"port {P}-up",
    f"port {P}-up 80",
    "port nosuch",
    f"diff {P}-up",
    "diff nosuch",
    f"exec {P}-up echo hello",
    f"exec {P}-up sh -c 'echo e >&2; exit 5'",
    f"exec -e A=b -w /tmp -u 1:2 {P}-up sh -c 'echo $A; pwd; id -u; id -g'",
    f"exec {P}-up nosuchcommand",
    f"exec {P}-up /etc/passwd",
    f"exec -it {P}-up sh",
    f"exec {P}-down true",
    "exec nosuch true",
    "exec",
    f"exec -d {P}-up true",
    "run --rm busybox echo hello",
    "run --rm busybox sh -c 'echo out; echo err >&2; exit 7'",
    "run --rm busybox nosuchcommand",
    "run --rm busybox /etc/passwd",
    "run --rm busybox /etc",
    "run --rm busybox /no/such",
    "run --rm -t busybox echo hello",
    "run --rm -it busybox true",
    "run --rm -w relative busybox true",
    "run --rm -u nosuchuser busybox true",
    "run --rm --pull never nosuchimage",
    "run --rm busybox sh -c 'kill -TERM $$; sleep 5'",
    "run --rm -a stderr busybox sh -c 'echo out; echo err >&2'",
    "run -d -a stdout busybox true",
    f"run --name {P}-up busybox true",
    "run --rm --cap-add nonsense busybox true",
    "run --rm --network nosuch busybox true",
    "run --rm -v /a:/b:/c:/d busybox true",
    "run --rm -m 1k busybox true",
    "run --rm --network container:nosuch busybox true",
    f"wait {P}-down",
    f"wait {P}-down nosuch",
    f"start {P}-up",
    f"start nosuch {P}-up nosuch2",
    f"start -a {P}-down",
    f"start -a {P}-down {P}-up",
    f"attach {P}-down",
    "attach nosuch",
    f"stop {P}-down",
    f"kill {P}-down",
    f"kill -s NONSENSE {P}-up",
    f"pause {P}-down",
    "pause nosuch",
    "restart nosuch",
    f"rm {P}-up",
    "rm nosuch",
    "rm -f nosuch",
    "rmi nosuch",
    "rmi -f nosuch",
    f"tag busybox {P}-image:two",
    "tag nosuch x",
    "save nosuch",
    "load -i /nosuch",
    "import /nosuch",
    "commit nosuch",
    "export nosuch",
    "cp a b",
    f"cp nosuch:/x {P}",
    f"cp {P}-up:/nosuch {P}",
    f"cp nosuch {P}-up:/",
    f"logs --since nonsense {P}-up",
    f"logs --since 10m {P}-up",
    f"logs --until 10m {P}-up",
    f"create --name {P}-up busybox",
    "create --pull never nosuchimage",
    "run --rm -v :/b busybox true",
    f"port {P}-up 80/udp",
    f"cp {P}-up:/a {P}-down:/b",
    f"cp {P}-up:/etc /no/such/place",
    "volume rm nosuch",
    "network rm nosuch",
    "network create host",
    "network disconnect bridge nosuch",
    f"events --since 1 --until 2 -f container={P}-none",
    "system df --format '{{.Type}}'",
    "nosuchcommand",
    "container nosuch",
    "container",
    "network",
    "--nonsense",
    "ps --nonsense",
    "ps -Z",
    "rm",
    "rename a",
    "port",
    "info -f '{{.Driver}} {{.NCPU}} {{.OSType}} {{.ServerVersion}}'",
    "version -f '{{.Server.Version}} {{.Server.Os}}'",
    "-H unix:///nosuch.sock ps -q",
]


@pytest.mark.parametrize("line", SAME)
def test_output_is_dockers(both: Both, line: str) -> None:
    arguments = shlex.split(line)
    for _ in range(3):  # ages tell seconds: one may pass between the two
        theirs, ours = both.docker(*arguments), both.hafen(*arguments)
        if ours == theirs:
            break
    assert ours.code == theirs.code
    if not line.startswith(("-H", "container", "network", "nosuchcommand")):  # there we say more
        assert ours.err == theirs.err
    if line not in ("container", "network"):
        assert ours.out == theirs.out


# Each changes something: docker does it, the second line undoes it, hafen does it, the second line undoes that.
CHANGES = [
    (f"pause {P}-up", f"unpause {P}-up"),
    (f"stop -t 0 {P}-up", f"start {P}-up"),
    (f"kill {P}-up", f"start {P}-up"),
    (f"restart -t 0 {P}-up", "ps"),
    (f"rename {P}-up {P}-other", f"rename {P}-other {P}-up"),
    (f"rename {P}-up {P}-down", "ps"),
    (f"tag busybox {P}-image:two", f"rmi {P}-image:two"),
    (f"rmi {P}-image:one", f"tag busybox {P}-image:one"),
    (f"volume create {P}-more", f"volume rm {P}-more"),
    (f"volume rm {P}-vol {P}-nosuch", "ps"),
    (f"update --restart no {P}-up", "ps"),
    (f"rm -f {P}-nosuch {P}-new", f"create --name {P}-new -it busybox"),
]


@pytest.mark.parametrize(("line", "undo"), CHANGES)
def test_changes_are_dockers(both: Both, line: str, undo: str) -> None:
    theirs = both.docker(*line.split())
    both.docker(*undo.split())
    ours = both.hafen(*line.split())
    both.docker(*undo.split())
    assert ours == theirs


def test_cp_makes_the_same_trees(both: Both) -> None:
    """Files, directories, contents, links and names that change, both ways."""
    source = both.directory / "src"
    (source / "deep").mkdir(parents=True)
    (source / "file").write_bytes(b"x" * 3000)
    (source / "deep/script").write_text("#!/bin/sh\n")
    (source / "deep/script").chmod(0o755)
    (source / "link").symlink_to("file")
    os.link(source / "file", source / "deep/hard")
    for name, command in (("docker", both.docker), ("hafen", both.hafen)):
        (both.directory / f"out-{name}").mkdir()
        for line in (
            f"cp src {P}-up:/{name}-tree", f"cp src/. {P}-up:/{name}-tree", f"cp src/file {P}-up:/{name}-tree/renamed",
            f"cp -a src {P}-up:/{name}-tree", f"cp src/link {P}-up:/{name}-tree/aslink",
            f"cp src/file {P}-up:/{name}-tree/deep/",
            f"cp -L src/link {P}-up:/{name}-tree/followed", f"cp {P}-up:/{name}-tree out-{name}",
            f"cp {P}-up:/{name}-tree/. out-{name}/contents", f"cp {P}-up:/{name}-tree/file out-{name}/new",
            f"cp {P}-up:/{name}-tree/link out-{name}/", f"cp -L {P}-up:/{name}-tree/link out-{name}/real",
            f"cp {P}-up:/{name}-tree/deep/script out-{name}/contents",
            f"cp {P}-up:/{name}-tree/deep out-{name}/other",
        ):  # fmt: skip
            result = command(*line.split())
            assert (result.code, result.out) == (0, ""), f"{line}: {result}"
    assert tree(both.directory / "out-hafen", "hafen") == tree(both.directory / "out-docker", "docker")


def tree(top: Path, name: str) -> dict[str, tuple[int, object, int]]:
    found: dict[str, tuple[int, object, int]] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content: object = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        # directories' times are those of the last copy into them
        when = 0 if path.is_dir() else int(status.st_mtime)
        found[str(path.relative_to(top)).replace(name, "X")] = (status.st_mode, content, when)
    return found


def test_cp_of_a_stream(both: Both) -> None:
    both.hafen("exec", f"{P}-up", "mkdir", "-p", "/streamed")
    packed = both.hafen("cp", f"{P}-up:/etc/passwd", "-")
    assert packed.code == 0
    raw = subprocess.run(
        [sys.executable, "-m", "hafen.cli.main", "cp", f"{P}-up:/etc/passwd", "-"],
        capture_output=True, env=both.environment, check=True,
    ).stdout  # fmt: skip
    (both.directory / "p.tar").write_bytes(raw)
    with tarfile.open(both.directory / "p.tar") as archive:
        assert archive.getnames() == ["passwd"]
    assert both.hafen("cp", "-", f"{P}-up:/streamed", stdin=raw).code == 0
    assert both.hafen("exec", f"{P}-up", "cat", "/streamed/passwd").out
    assert both.hafen("cp", "-", f"{P}-up:/etc/passwd", stdin=raw) == both.docker(
        "cp", "-", f"{P}-up:/etc/passwd", stdin=raw
    )


def test_images_travel_and_commit(both: Both) -> None:
    saved, exported = str(both.directory / "s.tar"), str(both.directory / "e.tar")
    assert both.hafen("save", "-o", saved, "busybox") == Result(0, "", "")
    assert both.hafen("load", "-i", saved) == both.docker("load", "-i", saved)
    assert both.hafen("load", "-q", "-i", saved) == both.docker("load", "-q", "-i", saved)
    assert both.hafen("export", "-o", exported, f"{P}-up") == Result(0, "", "")
    ours = both.hafen("import", "-c", "CMD sh", "-m", "text", exported, f"{P}-image:two")
    assert ours.code == 0
    assert ours.out.startswith("sha256:")
    committed = both.hafen("commit", "-m", "m", "-c", "ENV Y=2", f"{P}-up", f"{P}-image:two")
    assert committed.code == 0
    shown = both.hafen("inspect", "-f", "{{.Id}} {{.Config.Env}} {{.Comment}}", f"{P}-image:two")
    assert shown.out.split()[0] == committed.out.strip()
    assert "Y=2" in shown.out


def test_stdin_reaches_the_container_and_ends(both: Both) -> None:
    data = bytes(range(256)) * 4096
    done = subprocess.run(
        [sys.executable, "-m", "hafen.cli.main", "run", "--rm", "-i", "busybox", "cat"],
        input=data, capture_output=True, env=both.environment, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == data


def test_cidfile_is_written_once(both: Both) -> None:
    first = both.hafen("create", "--name", f"{P}-tmp", "--cidfile", "cid", "busybox")
    assert (both.directory / "cid").read_text() == first.out.strip()
    again = both.hafen("create", "--cidfile", "cid", "busybox")
    assert again == both.docker("create", "--cidfile", "cid", "busybox")
    both.docker("rm", f"{P}-tmp")
