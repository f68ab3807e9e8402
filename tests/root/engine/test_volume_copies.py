"""`hafen volume export`, `import`, `clone`, `snapshot`, `restore`; protected volumes and dry runs."""

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess

FILES = 500


def data(engine: EngineProcess, volume: str) -> Path:
    return engine.data / "volumes" / volume / "_data"


def fill(root: Path, files: int) -> None:
    """All that a file system can hold: foreign owners, modes, ACLs, xattrs, links, holes, devices, names that are no
    UTF-8, times before 1970."""
    for number in range(files):
        folder = root / f"d{number % 50}"
        folder.mkdir(exist_ok=True)
        path = folder / f"f{number}"
        path.write_bytes(b"%d\n" % number * (number % 97))
        os.chown(path, number % 5000, 4_000_000_000 + number % 7)
        path.chmod((number * 8) & 0o7777)
        os.utime(path, ns=(0, number * 1_234_567_891 - 10**10))
    hole = root / "hole"
    with hole.open("wb") as file:
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(16 << 20)
    with (root / "all hole").open("wb") as file:
        file.truncate(300 << 20)
    (root / "dense").write_bytes(bytes(1 << 20))
    os.setxattr(hole, "user.colour", b"gr\xfcn\n=")
    subprocess.run(["setfacl", "-m", "u:1234:rw,g:55:r", str(hole)], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx", str(root / "d0")], check=True)
    os.link(root / "dense", root / "d1/same")
    (root / "d2" / "link").symlink_to("../nowhere")
    os.lchown(root / "d2/link", 77, 78)
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (root / ("n" * 200)).mkdir()
    (root / ("n" * 200) / ("m" * 200)).touch()
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_text("no UTF-8")
    (root / ".wh.kept").write_text("a name that means something in layers only")
    root.chmod(0o2750)
    os.chown(root, 9, 10)


def state(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path with all that a copy must keep."""
    found: dict[str, tuple[object, ...]] = {}
    links: dict[tuple[int, int], str] = {}
    for directory, directories, files in os.walk(os.fsencode(root)):
        for name in (b".", *directories, *files):
            path = os.path.join(directory, name)
            shown = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
            status = os.lstat(path)
            content: object = status.st_rdev
            if stat.S_ISREG(status.st_mode):
                content = (status.st_size, Path(os.fsdecode(path)).read_bytes() if status.st_blocks else b"")
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            xattrs = {} if stat.S_ISLNK(status.st_mode) else {one: os.getxattr(path, one) for one in os.listxattr(path)}
            first = links.setdefault((status.st_dev, status.st_ino), shown)
            owner = (status.st_uid, status.st_gid)
            found[shown] = (status.st_mode, owner, status.st_mtime_ns, status.st_nlink, first, xattrs, content)
    return found


def differences(one: Path, other: Path) -> Sequence[tuple[str, object, object]]:
    here, there = state(one), state(other)
    return [
        (path, here.get(path), there.get(path))
        for path in sorted(here.keys() | there.keys())
        if here.get(path) != there.get(path)
    ][:3]


def blocks(root: Path) -> int:
    return (root / "hole").stat().st_blocks + (root / "all hole").stat().st_blocks


@pytest.fixture(scope="module")
def filled(engine: EngineProcess) -> str:
    engine.docker("volume", "create", "full")
    fill(data(engine, "full"), FILES)
    return "full"


def test_export_and_import_on_another_engine(engine: EngineProcess, filled: str, tmp_path: Path) -> None:
    archive = tmp_path / "full.tar"
    engine.hafen("volume", "export", "-o", str(archive), filled)
    assert archive.stat().st_size < 20 << 20  # the holes are not in it
    other_flags = ("--bridge", f"hfo{os.getpid() % 100000}")
    with EngineProcess(tmp_path / "other", *other_flags) as other:
        assert other.hafen("volume", "import", "-i", str(archive), "--label", "a=b", "again").stdout == "again\n"
        assert not differences(data(engine, filled), data(other, "again"))
        assert blocks(data(other, "again")) == blocks(data(engine, filled))
        assert other.docker("volume", "inspect", "-f", "{{.Labels}}", "again").stdout == "map[a:b]\n"
        refused = other.hafen("volume", "import", "-i", str(archive), "again", check=False)
        assert "there is a volume of that name already" in refused.stderr
        other.docker("volume", "rm", "again")


def test_gnu_tar_reads_it(engine: EngineProcess, filled: str, tmp_path: Path) -> None:
    archive, target = tmp_path / "full.tar", tmp_path / "unpacked"
    target.mkdir()
    engine.hafen("volume", "export", "-o", str(archive), filled)
    command = ["tar", "-x", "--xattrs", "--xattrs-include=*", "--same-owner", "-p", "-C", str(target)]
    subprocess.run([*command, "-f", str(archive)], check=True)
    assert not differences(data(engine, filled), target)
    assert blocks(target) == blocks(data(engine, filled))


def test_gnu_tars_archive_becomes_a_volume(engine: EngineProcess, filled: str, tmp_path: Path) -> None:
    command = ["tar", "-c", "--format=posix", "--sparse", "--xattrs", "--acls", "-C", str(data(engine, filled)), "."]
    archive = tmp_path / "theirs.tar"
    subprocess.run([*command, "-f", str(archive)], check=True)
    assert engine.hafen("volume", "import", "theirs", stdin=archive.read_bytes()).stdout == "theirs\n"
    assert not differences(data(engine, filled), data(engine, "theirs"))
    engine.docker("volume", "rm", "theirs")


def test_what_is_damaged_leaves_nothing(engine: EngineProcess, filled: str) -> None:
    volumes = {*os.listdir(engine.data / "volumes"), ".work"}
    for garbage in (b"x" * 2000, b"\x1f\x8b\x08\x00broken", b""):
        refused = engine.hafen("volume", "import", "broken", stdin=garbage, check=False)
        assert refused.code == 1
    assert "no such volume" in engine.docker("volume", "inspect", "broken", check=False).stderr
    assert {*os.listdir(engine.data / "volumes"), ".work"} == volumes
    assert not os.listdir(engine.data / "volumes/.work")


def test_clone_snapshot_and_restore(engine: EngineProcess, filled: str) -> None:
    assert engine.hafen("volume", "clone", filled, "twin").stdout == "twin\n"
    assert not differences(data(engine, filled), data(engine, "twin"))
    assert blocks(data(engine, "twin")) == blocks(data(engine, filled))
    assert engine.hafen("volume", "snapshot", "create", "twin", "first").stdout == "first\n"
    (data(engine, "twin") / "hole").unlink()
    (data(engine, "twin") / "new").write_text("new")
    second = engine.hafen("volume", "snapshot", "create", "twin").stdout.strip()
    assert engine.hafen("volume", "snapshot", "ls", "-q", "twin").stdout.split() == ["first", second]
    refused = engine.hafen("volume", "snapshot", "create", "twin", "first", check=False)
    assert "snapshot first of volume twin exists already" in refused.stderr
    engine.hafen("volume", "restore", "twin", "first")
    assert not differences(data(engine, filled), data(engine, "twin"))
    engine.hafen("volume", "clone", "--snapshot", second, "twin", "third")
    assert (data(engine, "third") / "new").read_text() == "new"
    engine.hafen("volume", "snapshot", "rm", "twin", "first", second)
    assert engine.hafen("volume", "snapshot", "ls", "-q", "twin").stdout == ""
    assert "has no snapshot first" in engine.hafen("volume", "restore", "twin", "first", check=False).stderr
    engine.hafen("volume", "snapshot", "create", "twin", "last")
    engine.docker("volume", "rm", "twin", "third")
    assert not (engine.data / "volumes/twin").exists()
    assert not os.listdir(engine.data / "volumes/.work")


# Two files that always have the same number, but for the moment between the two writes.
WRITER = "i=0; while :; do i=$((i+1)); echo $i >/v/.a; mv /v/.a /v/a; echo $i >/v/.b; mv /v/.b /v/b; done"


def test_writers_are_paused_and_go_on(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--net", "none", "--name", name, "-v", "busy:/v", "busybox", "sh", "-c", WRITER)
    for _ in range(3):
        engine.hafen("volume", "snapshot", "create", "busy", "now")
        engine.hafen("volume", "clone", "--snapshot", "now", "busy", "still")
        first, second = (int((data(engine, "still") / one).read_text() or "0") for one in "ab")
        assert first - second in (0, 1)
        engine.docker("volume", "rm", "still")
        engine.hafen("volume", "snapshot", "rm", "busy", "now")
    refused = engine.hafen("volume", "restore", "busy", "now", check=False)
    assert "has no snapshot now" in refused.stderr
    engine.hafen("volume", "snapshot", "create", "busy", "now")
    assert f"running containers use the volume: {name}" in engine.hafen(
        "volume", "restore", "busy", "now", check=False
    ).stderr  # fmt: skip
    before = int((data(engine, "busy") / "a").read_text())
    events = engine.docker(
        "events", "--since", "1m", "--until", f"{time.time():.9f}", "--filter", f"container={name}", "--format",
        "{{.Action}}",
    ).stdout.split()  # fmt: skip
    assert events.count("pause") == events.count("unpause") == 4
    assert engine.docker("inspect", "-f", "{{.State.Status}}", name).stdout == "running\n"
    deadline = time.monotonic() + 10
    while int((data(engine, "busy") / "a").read_text() or "0") <= before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for number in range(3):
        engine.hafen("volume", "snapshot", "create", "--live", "busy", f"live{number}")
        engine.hafen("volume", "export", "--live", "-o", os.devnull, "busy")
    engine.docker("rm", "-f", name)
    engine.hafen("volume", "restore", "busy", "now")
    engine.docker("volume", "rm", "busy")


def test_a_copy_that_a_crash_cut_short(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--net", "none", "--name", name, "-v", "big:/v", "busybox", "sleep", "600")
    (data(engine, "big") / "large").write_bytes(os.urandom(64 << 20))
    export = [sys.executable, "-m", "hafen.cli.main", "volume", "export", "big"]
    archive = subprocess.run(export, env=engine.environment, stdout=subprocess.PIPE, check=True).stdout
    for command in (("clone", "big", "part"), ("snapshot", "create", "big", "part"), ("import", "part")):
        client = subprocess.Popen(
            [sys.executable, "-m", "hafen.cli.main", "volume", *command], env=engine.environment,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert client.stdin
        if command[0] == "import":
            client.stdin.write(archive[: len(archive) // 2])
            client.stdin.flush()
        work = engine.data / "volumes/.work"
        deadline = time.monotonic() + 10
        while not list(work.glob("*/*")):
            assert time.monotonic() < deadline
            assert client.poll() is None
        engine.kill()
        client.stdin.close()
        client.wait()
        engine.start()
        assert os.listdir(work) == []
        assert engine.docker("inspect", "-f", "{{.State.Status}}", name).stdout == "running\n"
        assert engine.docker("exec", name, "echo", "alive").stdout == "alive\n"
        assert engine.docker("volume", "ls", "-q", "--filter", "name=part").stdout == ""
        assert not (engine.data / "volumes/part").exists()
        assert engine.hafen("volume", "snapshot", "ls", "-q", "big").stdout == ""
    engine.docker("rm", "-f", name)
    engine.docker("volume", "rm", "big")


def test_protected_volumes_stay(engine: EngineProcess, name: str) -> None:
    engine.docker("volume", "create", "--label", "hafen.protect", "dear")
    for command in (("volume", "rm", "dear"), ("volume", "rm", "-f", "dear")):
        assert "protected by its label hafen.protect" in engine.docker(*command, check=False).stderr
    assert "dear" not in engine.docker("volume", "prune", "-af").stdout
    anonymous = ("--mount", "type=volume,dst=/x,volume-label=hafen.protect=1")
    engine.docker("run", "--rm", "--net", "none", *anonymous, "busybox", "true")
    engine.docker("create", "--name", name, *anonymous, "busybox")
    engine.docker("rm", "-v", name)
    kept = engine.docker("volume", "ls", "-q", "--filter", "label=hafen.protect").stdout.split()
    assert len(kept) == 3
    engine.hafen("volume", "rm", "--force-protected", *kept)
    assert engine.docker("volume", "ls", "-q", "--filter", "label=hafen.protect").stdout == ""


def test_dry_runs_remove_nothing(engine: EngineProcess) -> None:
    engine.docker("volume", "create", "--label", "dry=1", "one")
    (data(engine, "one") / "file").write_bytes(bytes(3000))
    assert engine.hafen("volume", "rm", "--dry-run", "one").stdout == "Would remove:\none\n"
    assert "no such volume" in engine.hafen("volume", "rm", "--dry-run", "two", check=False).stderr
    told = engine.hafen("volume", "prune", "-a", "--dry-run", "--filter", "label=dry").stdout
    assert told == "Would delete:\none\n\nWould reclaim: 3kB\n"
    assert engine.docker("volume", "ls", "-q", "--filter", "label=dry").stdout == "one\n"
    engine.docker("volume", "rm", "one")


@pytest.fixture(params=["btrfs", "xfs"])
def sharing(request: pytest.FixtureRequest, machine_left_as_found: None) -> Iterator[EngineProcess]:
    """An engine on a file system that shares blocks between files."""
    kind = str(request.param)
    make = {"btrfs": ["mkfs.btrfs", "-q"], "xfs": ["mkfs.xfs", "-q"]}[kind]
    if f"\t{kind}\n" not in Path("/proc/filesystems").read_text():
        pytest.skip(f"this kernel has no {kind}")
    with tempfile.TemporaryDirectory(prefix="hafen-share-") as folder:
        image, root = Path(folder) / "image", Path(folder) / "root"
        with image.open("wb") as file:
            file.truncate(512 << 20)
        subprocess.run([*make, str(image)], check=True)
        root.mkdir()
        subprocess.run(["mount", "-o", "loop", str(image), str(root)], check=True)
        try:
            with EngineProcess(root / "e", "--bridge", f"hfs{os.getpid() % 100000}") as process:
                yield process
        finally:
            subprocess.run(["umount", str(root)], check=True)


def test_a_snapshot_takes_no_room_where_blocks_are_shared(sharing: EngineProcess) -> None:
    sharing.docker("volume", "create", "large")
    (data(sharing, "large") / "file").write_bytes(os.urandom(64 << 20))
    os.sync()
    free = os.statvfs(sharing.data).f_bavail
    sharing.hafen("volume", "snapshot", "create", "large", "one")
    sharing.hafen("volume", "clone", "large", "twin")
    os.sync()
    status = os.statvfs(sharing.data)
    assert (free - status.f_bavail) * status.f_frsize < 16 << 20
    assert (data(sharing, "twin") / "file").read_bytes() == (data(sharing, "large") / "file").read_bytes()
    sharing.docker("volume", "rm", "large", "twin")
