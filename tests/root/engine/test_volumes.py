"""Volumes, binds and tmpfs as the docker command asks for them."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from hafen.engine import subpaths
from tests.harness.engine import EngineProcess


@pytest.fixture(scope="module")
def image(engine: EngineProcess) -> str:
    """An image that declares a volume with content: an owner, a mode, a link and a directory."""
    script = (
        "mkdir -p /data/sub && echo seed >/data/sub/file && chown 7:8 /data/sub/file && chmod 640 /data/sub/file"
        " && ln -s sub/file /data/link && chmod 1770 /data"
    )
    engine.docker("run", "--name", "seed", "--net", "none", "busybox", "sh", "-c", script)
    engine.docker("commit", "--change", "VOLUME /data", "--change", 'CMD ["sh"]', "seed", "seeded")
    engine.docker("rm", "seed")
    return "seeded"


def run(engine: EngineProcess, *arguments: str) -> str:
    return engine.docker("run", "--rm", "--net", "none", *arguments).stdout


def test_a_new_volume_takes_what_the_image_has(engine: EngineProcess, image: str) -> None:
    shown = run(engine, "-v", "copied:/data", image, "sh", "-c", "ls -ln /data/sub/file /data/link; stat -c %a /data")
    assert "-rw-r-----" in shown
    assert " 7 " in shown
    assert " 8 " in shown
    assert "/data/link -> sub/file" in shown
    assert shown.endswith("1770\n")
    outside = engine.data / "volumes/copied/_data/sub/file"
    assert (outside.stat().st_uid, outside.stat().st_gid, outside.read_text()) == (7, 8, "seed\n")
    run(engine, "-v", "copied:/data", image, "sh", "-c", "echo mine >/data/sub/file")
    assert run(engine, "-v", "copied:/data", image, "cat", "/data/link") == "mine\n"
    assert engine.docker("volume", "rm", "copied").stdout == "copied\n"


def test_nocopy_leaves_it_empty(engine: EngineProcess, image: str) -> None:
    assert run(engine, "-v", "bare:/data:nocopy", image, "ls", "-A", "/data") == ""
    engine.docker("volume", "rm", "bare")


def test_anonymous_volumes_go_with_an_auto_removed_container(engine: EngineProcess, image: str) -> None:
    before = set(os.listdir(engine.data / "volumes"))
    assert run(engine, image, "cat", "/data/sub/file") == "seed\n"
    events = engine.docker(
        "events", "--since", "1m", "--until", f"{time.time():.9f}", "--filter", "event=destroy"
    ).stdout
    assert events
    assert engine.docker("volume", "ls", "-q").stdout == ""
    assert set(os.listdir(engine.data / "volumes")) == before


def test_anonymous_volumes_stay_without_v(engine: EngineProcess, image: str, name: str) -> None:
    engine.docker("create", "--name", name, image)
    engine.docker("rm", name)
    (left,) = engine.docker("volume", "ls", "-q").stdout.split()
    assert engine.docker("volume", "prune", "-f").stdout.split()[2] == left
    engine.docker("create", "--name", name, image)
    engine.docker("rm", "-v", name)
    assert engine.docker("volume", "ls", "-q").stdout == ""


def test_a_volume_in_use_stays(engine: EngineProcess, name: str) -> None:
    container = engine.docker("create", "--name", name, "-v", "used:/x", "busybox").stdout.strip()
    refused = engine.docker("volume", "rm", "used", check=False)
    assert f"remove used: volume is in use - [{container}]" in refused.stderr
    engine.docker("rm", name)
    engine.docker("volume", "rm", "used")
    assert "get used: no such volume" in engine.docker("volume", "inspect", "used", check=False).stderr


def test_volumes_from(engine: EngineProcess, name: str) -> None:
    engine.docker("create", "--name", name, "-v", "/shared", "busybox")
    run(engine, "--volumes-from", name, "busybox", "sh", "-c", "echo x >/shared/f")
    assert run(engine, "--volumes-from", f"{name}:ro", "busybox", "cat", "/shared/f") == "x\n"
    refused = engine.docker(
        "run", "--rm", "--net", "none", "--volumes-from", f"{name}:ro", "busybox", "touch", "/shared/g", check=False
    )
    assert "Read-only file system" in refused.stderr


def test_v_makes_a_missing_source_and_mount_does_not(engine: EngineProcess, tmp_path: Path) -> None:
    assert run(engine, "-v", f"{tmp_path}/new/dir:/x", "busybox", "ls", "-A", "/x") == ""
    assert (tmp_path / "new/dir").is_dir()
    refused = engine.docker(
        "run", "--rm", "--mount", f"type=bind,src={tmp_path}/absent,dst=/x", "busybox", "true", check=False
    )
    assert refused.code == 125
    assert f'invalid mount config for type "bind": bind source path does not exist: {tmp_path}/absent' in refused.stderr
    assert not (tmp_path / "absent").exists()


def test_a_single_file_and_read_only(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("content\n")
    assert run(engine, "-v", f"{tmp_path}/f:/etc/given:ro", "busybox", "cat", "/etc/given") == "content\n"
    refused = engine.docker(
        "run", "--rm", "--net", "none", "-v", f"{tmp_path}:/x:ro", "busybox", "touch", "/x/y", check=False
    )
    assert "Read-only file system" in refused.stderr


def test_tmpfs(engine: EngineProcess, name: str) -> None:
    shown = run(
        engine, "--tmpfs", "/t:size=1m,mode=700", "busybox", "sh", "-c", "grep ' /t ' /proc/mounts; stat -c %a /t"
    )
    assert "size=1024k" in shown
    assert "noexec" in shown
    assert shown.endswith("700\n")
    engine.docker("create", "--name", name, "--tmpfs", "/t:size=1m", "--mount", "type=tmpfs,dst=/u", "busybox")
    mounts = json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", name).stdout)
    assert [(one["Type"], one["Destination"]) for one in mounts] == [("tmpfs", "/u")]


def test_options_of_the_local_driver(engine: EngineProcess) -> None:
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m")
    engine.docker("volume", "create", *options, "memory")
    assert "size=2048k" in run(engine, "-v", "memory:/m", "busybox", "grep", " /m ", "/proc/mounts")
    engine.docker("volume", "rm", "memory")
    refused = engine.docker("volume", "create", "-o", "foo=1", "bad", check=False)
    assert 'create bad: invalid option: "foo"' in refused.stderr


def test_volume_subpath(engine: EngineProcess, image: str) -> None:
    run(engine, "-v", "sub:/data", image, "true")
    mount = "type=volume,src=sub,dst=/x,volume-subpath=sub"
    assert run(engine, "--mount", mount, "busybox", "cat", "/x/file") == "seed\n"
    links = "ln -s /etc /data/out; ln -s ../.. /data/up; ln -s loop /data/loop; ln -s sub /data/in"
    run(engine, "-v", "sub:/data", "busybox", "sh", "-c", links)
    assert run(engine, "--mount", "type=volume,src=sub,dst=/x,volume-subpath=in", "busybox", "ls", "/x") == "file\n"
    volume = engine.data / "volumes/sub/_data"
    unresolved = "error while resolving symlinks in combined path"
    for subpath, said in {
        "out": f"path concatenation escapes the base directory, base: {volume}, subpath: out",
        "up": f"path concatenation escapes the base directory, base: {volume}, subpath: up",
        "none": f"cannot access path {volume}/none: lstat {volume}/none: no such file or directory",
        "sub/file/x": f'{unresolved} "{volume}/sub/file/x": not a directory',
        "loop": f'{unresolved} "{volume}/loop": EvalSymlinks: too many links',
    }.items():
        mount = f"type=volume,src=sub,dst=/x,volume-subpath={subpath}"
        refused = engine.docker("run", "--rm", "--mount", mount, "busybox", "true", check=False)
        assert f"Error response from daemon: {said}\n" in refused.stderr
    engine.docker("volume", "rm", "sub")


# Until it is killed, the name is a directory at one moment and a link to the host's root at the next.
SWAPPER = """
import os, sys
from hafen.kernel import fs
directory = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
print(flush=True)
while True:
    fs.exchange(directory, "sub", "link")
"""


def test_a_subpath_that_is_swapped_for_a_link(engine: EngineProcess, name: str, tmp_path: Path) -> None:
    (tmp_path / "of-the-host").touch()
    engine.docker("volume", "create", name)
    volume = engine.data / "volumes" / name / "_data"
    (volume / "sub").mkdir()
    (volume / "sub/inside").touch()
    (volume / "link").symlink_to(tmp_path)
    mount = f"type=volume,src={name},dst=/x,volume-subpath=sub"
    engine.docker("create", "--name", name, "--net", "none", "--mount", mount, "busybox", "ls", "/x")
    said = []
    try:
        with subprocess.Popen([sys.executable, "-c", SWAPPER, str(volume)], stdout=subprocess.PIPE) as swapper:
            try:
                assert swapper.stdout
                swapper.stdout.readline()
                for _ in range(40):
                    said.append(engine.docker("start", "-a", name, check=False).stdout)
            finally:
                swapper.kill()
        assert "inside\n" in said
        assert list((engine.run / "subpaths").iterdir()) == []
        assert "of-the-host\n" not in said
    finally:
        engine.docker("rm", "-f", name)
        engine.docker("volume", "rm", name)


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_held_subpath_goes_with_the_next_engine(tmp_path: Path, kind: str) -> None:
    (tmp_path / "volume/sub").mkdir(parents=True)
    (tmp_path / "volume/sub/file").write_text("kept")
    places = tmp_path / "places"
    with ExitStack() as held:
        inside = "sub" if kind == "directory" else "sub/file"
        place = Path(subpaths.hold(str(tmp_path / "volume"), inside, str(places), held))
        assert (place / "file" if kind == "directory" else place).read_text() == "kept"
        held.pop_all()  # as a kill: nobody lets go of it
    subpaths.sweep(str(places))
    assert list(places.iterdir()) == []
    assert (tmp_path / "volume/sub/file").read_text() == "kept"


def test_mounts_are_shared_with_the_host_where_asked(engine: EngineProcess, tmp_path: Path) -> None:
    refused = engine.docker(
        "run", "--rm", "--net", "none", "-v", f"{tmp_path}:/x:rshared", "busybox", "true", check=False
    )
    assert "but it is not a shared mount" in refused.stderr
    subprocess.run(["mount", "-t", "tmpfs", "hafen-engine", str(tmp_path)], check=True)
    try:
        subprocess.run(["mount", "--make-shared", str(tmp_path)], check=True)
        script = "mkdir /x/inner && mount -t tmpfs inner /x/inner && touch /x/inner/f"
        run(engine, "--privileged", "-v", f"{tmp_path}:/x:rshared", "busybox", "sh", "-c", script)
        assert (tmp_path / "inner/f").exists()
    finally:
        subprocess.run(["umount", "-R", str(tmp_path)], check=True)


def mounted(engine: EngineProcess, name: str) -> list[str]:
    """Types of the file systems that are mounted on the volume's directory on this machine."""
    path = str(engine.data / "volumes" / name / "_data")
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return [line.partition(" - ")[2].split()[0] for line in file if line.split()[4] == path]


def wait_unmounted(engine: EngineProcess, name: str) -> None:
    """The unmount follows the exit; nothing tells when."""
    deadline = time.monotonic() + 10
    while mounted(engine, name):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_containers_share_a_tmpfs_while_one_of_them_runs(engine: EngineProcess, name: str) -> None:
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=1000")
    engine.docker("volume", "create", *options, "together")
    engine.docker("create", "--net", "none", "-it", "--name", name, "-v", "together:/etc", "busybox")
    wait_unmounted(engine, "together")  # where the image's files were copied
    engine.docker("start", name)
    assert mounted(engine, "together") == ["tmpfs"]
    engine.docker("exec", name, "sh", "-c", "echo hi >/etc/new")
    assert run(engine, "-v", "together:/y:ro", "busybox", "cat", "/y/new") == "hi\n"
    subpath = "type=volume,src=together,dst=/y,volume-subpath=new"
    assert run(engine, "--mount", subpath, "busybox", "cat", "/y") == "hi\n"
    assert mounted(engine, "together") == ["tmpfs"]
    engine.docker("kill", name)
    wait_unmounted(engine, "together")
    engine.docker("rm", name)
    engine.docker("volume", "rm", "together")


def test_what_a_volume_is_made_of_is_never_deleted_with_it(engine: EngineProcess, tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").write_text("x")
    options = ("-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind")
    engine.docker("volume", "create", *options, "bound")
    engine.docker("run", "-dit", "--net", "none", "--name", name, "-v", "bound:/x", "busybox")
    assert engine.docker("exec", name, "ls", "/x").stdout == "precious\n"
    assert len(mounted(engine, "bound")) == 1
    assert "in use" in engine.docker("volume", "rm", "bound", check=False).stderr
    engine.docker("rm", "-f", name)
    engine.docker("volume", "rm", "bound")
    assert (tmp_path / "precious").read_text() == "x"
    engine.docker("volume", "create", *options, "--label", "a=b", "bound")
    assert "bound" not in engine.docker("volume", "prune", "-af", "--filter", "label=a=b").stdout
    engine.docker("volume", "rm", "bound")


def test_read_only_binds_and_an_image_in_a_file(engine: EngineProcess, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    options = ("-o", "type=ext4", "-o", f"device={image}", "-o", "o=loop")
    engine.docker("volume", "create", *options, "disk")
    run(engine, "-v", "disk:/x", "busybox", "sh", "-c", "echo kept >/x/file")
    wait_unmounted(engine, "disk")
    assert run(engine, "-v", "disk:/x", "busybox", "cat", "/x/file") == "kept\n"
    wait_unmounted(engine, "disk")
    deadline = time.monotonic() + 10
    while str(image) in subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.01)  # the kernel lets go of the device once the container's mount namespace is gone
    engine.docker("volume", "rm", "disk")
    engine.docker("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind,ro", "still")
    refused = engine.docker("run", "--rm", "--net", "none", "-v", "still:/x", "busybox", "touch", "/x/y", check=False)
    assert "Read-only file system" in refused.stderr
    engine.docker("volume", "rm", "still")


def test_an_overlay_as_a_volume(engine: EngineProcess, tmp_path: Path) -> None:
    for part in ("lower", "upper", "work"):
        (tmp_path / part).mkdir()
    (tmp_path / "lower/below").write_text("below\n")
    words = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    engine.docker("volume", "create", "-o", "type=overlay", "-o", "device=overlay", "-o", f"o={words}", "layers")
    assert run(engine, "-v", "layers:/x", "busybox", "sh", "-c", "cat /x/below; echo up >/x/above") == "below\n"
    assert (tmp_path / "upper/above").read_text() == "up\n"
    wait_unmounted(engine, "layers")
    engine.docker("volume", "rm", "layers")


KERNEL_HAS = Path("/proc/filesystems").read_text()


@pytest.mark.parametrize(
    ("kind", "device", "words", "said"),
    [
        ("tmpfs", "tmpfs", "bogus=1", "mount tmpfs:{path}, data: bogus=1: invalid argument"),
        ("ext4", "/nope.img", "", "mount /nope.img:{path}: no such file or directory"),
        ("nofs", "/nope", "", "mount /nope:{path}: no such device"),
        ("none", "/nope", "bind,ro", "mount /nope:{path}, flags: 0x1001: no such file or directory"),
        ("nfs", ":/x", "addr=localhost,rw,nolock", "mount :/x:{path}, data: addr=127.0.0.1,nolock: no such device"),
        (
            "cifs", "//localhost/x", "username=a,password=b",
            "mount //127.0.0.1/x:{path}, data: username=a,password=********: no such device",
        ),
        (
            "cifs", "//localhost/x", "addr=localhost,password=b",
            "mount //localhost/x:{path}, data: addr=127.0.0.1,password=********: no such device",
        ),
    ],
)  # fmt: skip
def test_what_the_kernel_refuses(engine: EngineProcess, kind: str, device: str, words: str, said: str) -> None:
    if kind in ("nfs", "cifs") and f"\t{kind}\n" in KERNEL_HAS:
        pytest.skip("this kernel would go and look for the server")
    options = ["-o", f"type={kind}", "-o", f"device={device}", *(["-o", f"o={words}"] if words else [])]
    engine.docker("volume", "create", *options, "refused")
    refused = engine.docker("run", "--rm", "--net", "none", "-v", "refused:/x", "busybox", "true", check=False)
    path = engine.data / "volumes/refused/_data"
    failed = f"error while mounting volume '{path}': failed to mount local volume: {said.format(path=path)}"
    assert failed in refused.stderr
    assert mounted(engine, "refused") == []
    engine.docker("volume", "rm", "refused")


def test_a_server_that_has_no_address(engine: EngineProcess) -> None:
    options = ("-o", "type=nfs", "-o", "device=:/x", "-o", "o=addr=nowhere.invalid")
    engine.docker("volume", "create", *options, "far")
    refused = engine.docker("run", "--rm", "--net", "none", "-v", "far:/x", "busybox", "true", check=False)
    assert "error resolving passed in network volume address: lookup nowhere.invalid" in refused.stderr
    engine.docker("volume", "rm", "far")


def test_an_empty_volume_is_filled_whenever_it_is_used(engine: EngineProcess, image: str) -> None:
    engine.docker("volume", "create", "later")
    run(engine, "-v", "later:/new", "busybox", "true")
    assert run(engine, "-v", "later:/data", image, "cat", "/data/sub/file") == "seed\n"
    run(engine, "-v", "later:/x", "busybox", "rm", "-r", "/x/sub")
    assert run(engine, "-v", "later:/data", image, "ls", "/data") == "link\n"
    run(engine, "-v", "later:/x", "busybox", "mkdir", "/x/below")
    subpath = "type=volume,src=later,dst=/data,volume-subpath=below"
    assert run(engine, "--mount", subpath, image, "cat", "/data/sub/file") == "seed\n"
    engine.docker("volume", "rm", "later")


def test_mounts_after_a_kill(engine: EngineProcess, name: str) -> None:
    for volume in ("kept", "left"):
        engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", volume)
    keep, leave = f"{name}-keep", f"{name}-leave"
    engine.docker("run", "-dit", "--net", "none", "--name", keep, "-v", "kept:/x", "busybox")
    engine.docker("run", "-dit", "--net", "none", "--name", leave, "-v", "left:/x", "busybox")
    engine.docker("exec", keep, "touch", "/x/here")
    pid = int(engine.docker("inspect", "-f", "{{.State.Pid}}", leave).stdout)
    engine.kill()
    os.kill(pid, 9)
    assert mounted(engine, "left") == ["tmpfs"]
    engine.start()
    wait_unmounted(engine, "left")
    assert run(engine, "-v", "kept:/y", "busybox", "ls", "/y") == "here\n"
    assert mounted(engine, "kept") == ["tmpfs"]
    engine.docker("rm", "-f", keep, leave)
    wait_unmounted(engine, "kept")
    engine.docker("volume", "rm", "kept", "left")


def test_cp_reaches_the_volumes_of_a_stopped_container(engine: EngineProcess, tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    engine.docker("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}/there", "-o", "o=bind", "cp")
    engine.docker("create", "--name", name, "-v", "cp:/x", "busybox")
    (tmp_path / "file").write_text("content")
    engine.docker("cp", str(tmp_path / "file"), f"{name}:/x/copied")
    assert (tmp_path / "there/copied").read_text() == "content"
    wait_unmounted(engine, "cp")
    engine.docker("rm", name)
    engine.docker("volume", "rm", "cp")


def test_ids_of_a_bind_are_mapped(engine: EngineProcess, tmp_path: Path) -> None:
    os.chown(tmp_path, 1000, 1001)
    (tmp_path / "theirs").write_text("theirs\n")
    os.chown(tmp_path / "theirs", 1000, 1001)
    mount = f"type=bind,src={tmp_path},dst=/x,idmap=uids=1000-0-1;gids=1001-0-1"
    script = "stat -c '%u %g' /x/theirs; touch /x/made; stat -c '%u %g' /x/made"
    shown = engine.hafen("run", "--rm", "--net", "none", "--mount", mount, "busybox", "sh", "-c", script).stdout
    assert shown == "0 0\n0 0\n"
    made = (tmp_path / "made").stat()
    assert (made.st_uid, made.st_gid) == (1000, 1001)
    other = ("run", "--rm", "--net", "none", "--mount", mount, "-u", "5:5", "busybox", "touch", "/x/other")
    assert "touch: /x/other" in engine.hafen(*other, check=False).stderr
    assert not (tmp_path / "other").exists()
    nonsense = f"type=bind,src={tmp_path},dst=/x,idmap=true"
    refused = engine.hafen("create", "--mount", nonsense, "busybox", check=False).stderr
    assert 'invalid mount config for type "bind": invalid idmap' in refused


def test_the_owner_of_a_bind_is_the_containers_user(engine: EngineProcess, tmp_path: Path) -> None:
    os.chown(tmp_path, 1000, 1001)
    (tmp_path / "mine").write_text("x")
    os.chown(tmp_path / "mine", 1000, 1001)
    script = "stat -c '%u %g' /x/mine; echo y >>/x/mine && touch /x/made"
    assert run(engine, "-u", "nobody", "-v", f"{tmp_path}:/x:U", "busybox", "sh", "-c", script) == "65534 65534\n"
    for name in ("mine", "made"):
        status = (tmp_path / name).stat()
        assert (status.st_uid, status.st_gid) == (1000, 1001)
    assert run(engine, "-v", f"{tmp_path}:/x:ro,U", "busybox", "stat", "-c", "%u %g", "/x/mine") == "0 0\n"


def test_a_file_system_that_cannot_map_ids(engine: EngineProcess) -> None:
    refused = engine.docker("run", "--rm", "--net", "none", "-v", "/proc/sys:/x:U", "busybox", "true", check=False)
    assert "cannot map ids" in refused.stderr


def test_what_no_volume_has_goes_only_where_it_is_empty(engine: EngineProcess) -> None:
    for name in ("empty", "theirs"):
        (engine.data / "volumes" / name / "_data").mkdir(parents=True)
    (engine.data / "volumes/theirs/_data/file").write_text("x")
    engine.kill()
    engine.start()
    assert not (engine.data / "volumes/empty").exists()
    assert (engine.data / "volumes/theirs/_data/file").read_text() == "x"
    shutil.rmtree(engine.data / "volumes/theirs")
