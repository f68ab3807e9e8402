"""A small virtual machine that runs this checkout's tests on another kernel: Debian's cloud kernel, cgroup v2 alone.

    machine = Machine.build(cache)            # kernel and root image, cached; Unavailable says what is missing
    status, output = machine.run("pytest ...")

The root image holds this machine's own Python, virtual environment and a few tools, each with the shared libraries
it needs and at the same path, so that what is tested in there is what is tested out here. The checkout's sources
are a second, small image, made for each run. QEMU emulates in software (TCG): nothing here needs KVM.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INIT = Path(__file__).with_name("init.sh")
KERNEL_PACKAGE = "linux-image-cloud-amd64"
QEMU = "qemu-system-x86_64"

# Programs that tests start, besides busybox's.
TOOLS = ("bash", "tar", "ip", "nft", "mount", "umount", "unshare", "nsenter", "setpriv", "tini", "runc", "crun",
         "mke2fs", "smbd", "smbpasswd")  # fmt: skip
LIBRARIES = ("libseccomp.so.2", "libnftables.so.1", "libgcc_s.so.1")
# Of the environment, everything but what no test imports.
NOT_IN_SITE_PACKAGES = re.compile(r"pip|setuptools|pkg_resources|mypy|ruff|grimp|importlinter|.*__mypyc|rich")
NOT_IN_STDLIB = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "ensurepip",
    "site-packages",
    "distutils",
    "lib2to3",
    "turtledemo",
}
BOOT_MODULES = ("virtio_pci", "virtio_blk")
MODULE_FOLDERS = ("fs/overlayfs", "fs/fuse", "fs/quota", "fs/erofs", "fs/nfs", "fs/nfs_common", "fs/nfsd", "fs/lockd",
                  "fs/netfs", "fs/fscache", "fs/smb", "fs/nls", "drivers/virtio", "drivers/block", "drivers/net", "net",
                  "lib", "crypto", "block")  # fmt: skip
KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 root=/dev/vda rw init=/init cgroup_no_v1=all "
    "apparmor=1 security=apparmor mitigations=off no_timer_check random.trust_cpu=on"
)


class Unavailable(Exception):
    """The VM cannot be made here; the message says why."""


@dataclass(frozen=True)
class Machine:
    kernel: Path
    initramfs: Path
    root: Path

    @classmethod
    def build(cls, cache: Path) -> "Machine":
        if platform.machine() != "x86_64":
            raise Unavailable(f"the VM is x86-64, this machine is {platform.machine()}")
        for program, package in ((QEMU, "qemu-system-x86"), ("mke2fs", "e2fsprogs"), ("busybox", "busybox-static")):
            if not shutil.which(program):
                raise Unavailable(f"{program} is not installed (package {package})")
        cache.mkdir(parents=True, exist_ok=True)
        kernel = _kernel(cache)
        initramfs = kernel / "initramfs"
        if not initramfs.exists():
            _make_initramfs(kernel, initramfs)
        return cls(next((kernel / "boot").glob("vmlinuz-*")), initramfs, _root_image(cache, kernel))

    def run(self, command: str, seconds: float = 240) -> tuple[int, str]:
        """Boots, runs the shell command in the checkout, and returns its exit status and output.

        TimeoutError, with the console's end, when the machine does not stop in time.
        """
        with tempfile.TemporaryDirectory(prefix="hafen-vm-") as name:
            work = Path(name)
            _make_source_image(work / "source", command)
            console, output = work / "console", work / "output"
            drives = [f"file={path},format=raw,if=virtio,snapshot=on" for path in (self.root, work / "source")]
            process = subprocess.Popen(
                [
                    QEMU, "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1536", "-cpu", "Nehalem",
                    "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                    "-kernel", str(self.kernel), "-initrd", str(self.initramfs), "-append", KERNEL_COMMAND_LINE,
                    "-serial", f"file:{console}", "-serial", f"file:{output}",
                    "-drive", drives[0], "-drive", drives[1],
                ],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "TMPDIR": name},
            )  # fmt: skip
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise TimeoutError(
                    f"the VM did not finish in {seconds:.0f} s\n{_end(console)}\n{_end(output)}"
                ) from None
            finally:
                process.kill()
                process.wait()
            text = output.read_text(errors="replace").replace("\r\n", "\n")
            body, marker, status = text.rpartition("exit status ")
            if not marker:
                raise TimeoutError(f"the VM stopped before its command ended\n{_end(console)}\n{text}")
            return int(status), body


def _end(path: Path) -> str:
    return path.read_text(errors="replace")[-4000:] if path.exists() else ""


def _kernel(cache: Path) -> Path:
    """The unpacked kernel package, the one in the cache if there is one."""
    kernels = sorted(path for path in cache.glob("linux-image-*") if (path / "boot").is_dir())
    if kernels:
        return kernels[-1]
    depends = subprocess.run(["apt-cache", "depends", KERNEL_PACKAGE], capture_output=True, text=True, check=False)
    names: list[str] = re.findall(r"Depends: (linux-image-\S+)", depends.stdout)
    if not names:
        raise Unavailable(f"no package {KERNEL_PACKAGE} in apt's lists (run apt-get update)")
    with tempfile.TemporaryDirectory(dir=cache) as work:
        download = subprocess.run(
            ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", names[0]],
            cwd=work, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if download.returncode:
            raise Unavailable(f"cannot download {names[0]}: {download.stderr.strip()}")
        unpacked = Path(work) / "unpacked"
        subprocess.run(["dpkg-deb", "-x", next(Path(work).glob("*.deb")), unpacked], check=True)
        unpacked.rename(cache / names[0])
    return cache / names[0]


def _make_initramfs(kernel: Path, target: Path) -> None:
    """busybox and the modules that are needed to find the root disk."""
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        for folder in ("bin", "dev", "proc", "root"):
            (tree / folder).mkdir()
        shutil.copy(shutil.which("busybox") or "", tree / "bin/busybox")
        _copy_modules(tree, kernel, ("drivers/virtio", "drivers/block"))
        script = ["#!/bin/busybox sh", "/bin/busybox mount -t devtmpfs dev /dev"]
        script += [f"/bin/busybox modprobe {module}" for module in BOOT_MODULES]
        script += ["/bin/busybox mount -t ext4 /dev/vda /root", "exec /bin/busybox switch_root /root /init"]
        (tree / "init").write_text("\n".join(script) + "\n")
        (tree / "init").chmod(0o755)
        names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
        with target.open("wb") as output:
            subprocess.run(["busybox", "cpio", "-o", "-H", "newc"], cwd=tree, input=names.encode(), stdout=output,
                           stderr=subprocess.DEVNULL, check=True)  # fmt: skip


def _root_image(cache: Path, kernel: Path) -> Path:
    site = Path(sysconfig.get_path("purelib"))
    python = Path(sys.base_prefix) / "bin" / Path(os.path.realpath(sys.executable)).name
    tools = [Path(path) for path in map(shutil.which, TOOLS) if path]
    facts = [INIT.read_text(), Path(__file__).read_text(), kernel.name, sys.version, str(sorted(tools))]
    facts += sorted(path.name for path in site.iterdir())
    image = cache / f"root-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.ext4"
    if image.exists():
        return image
    for old in cache.glob("root-*.ext4"):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="hafen-vm-") as name:
        tree = Path(name)
        for folder in (
            "bin",
            "sbin",
            "usr/bin",
            "usr/sbin",
            "dev",
            "proc",
            "sys",
            "run",
            "tmp",
            "var/tmp",
            "etc",
            "root",
        ):
            (tree / folder).mkdir(parents=True, exist_ok=True)
        (tree / "tmp").chmod(0o1777)
        (tree / "var/tmp").chmod(0o1777)
        (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
        (tree / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")
        shutil.copy(INIT, tree / "init")
        (tree / "init").chmod(0o755)
        _copy_busybox(tree)
        _copy_modules(tree, kernel, MODULE_FOLDERS)
        _copy_python(tree, python, site)
        _copy_programs(tree, [python, *tools, *_libraries(), *(tree / str(python)[1:]).parents[1].rglob("*.so")])
        _copy_programs(tree, site.rglob("*.so"), only_libraries=True)
        _make_image(tree, image, "1200M")
    return image


def _copy_busybox(tree: Path) -> None:
    busybox = shutil.which("busybox") or ""
    for name in ("bin/busybox", busybox.lstrip("/")):
        shutil.copy(busybox, tree / name)
    for applet in subprocess.run([busybox, "--list-full"], capture_output=True, text=True, check=True).stdout.split():
        at = tree / applet
        at.parent.mkdir(parents=True, exist_ok=True)
        if not at.exists():
            at.symlink_to("/bin/busybox")


def _copy_modules(tree: Path, kernel: Path, folders: Iterable[str]) -> None:
    modules = next((kernel / "lib/modules").iterdir())
    target = tree / "lib/modules" / modules.name
    target.mkdir(parents=True)
    for folder in folders:
        if (modules / "kernel" / folder).exists():
            shutil.copytree(modules / "kernel" / folder, target / "kernel" / folder)
    for path in modules.glob("modules.*"):
        shutil.copy(path, target)
    subprocess.run(["busybox", "depmod", "-b", str(tree), modules.name], check=True)


def _copy_python(tree: Path, python: Path, site: Path) -> None:
    stdlib = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    ignored = {*NOT_IN_STDLIB, *(path.name for path in stdlib.glob("config-*"))}
    shutil.copytree(stdlib, _at(tree, stdlib), ignore=lambda _, names: ignored.intersection(names))
    # The names of the interpreter, and the virtual environment, at its own path.
    for folder in (python.parent, Path(sys.prefix) / "bin"):
        _at(tree, folder).mkdir(parents=True, exist_ok=True)
        for path in folder.glob("python*"):
            if path.is_symlink():
                _at(tree, path).symlink_to(os.readlink(path))
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", _at(tree, Path(sys.prefix)))
    shutil.copytree(
        site, _at(tree, site), ignore=lambda folder, names: {n for n in names if NOT_IN_SITE_PACKAGES.match(n)}
    )


def _libraries() -> list[Path]:
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True,
                           env={**os.environ, "PATH": f"{os.environ['PATH']}:/sbin:/usr/sbin"}).stdout  # fmt: skip
    return [Path(path) for name in LIBRARIES for path in re.findall(rf"{re.escape(name)} .*x86-64.* => (\S+)", known)]


def _copy_programs(tree: Path, programs: Iterable[Path], *, only_libraries: bool = False) -> None:
    """Copies files and the shared libraries that they need, each to its own path."""
    for program in programs:
        here = Path("/") / program.relative_to(tree) if program.is_relative_to(tree) else program
        listed = subprocess.run(["ldd", here], capture_output=True, text=True, check=False).stdout
        needed = [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]
        for path in needed if only_libraries else [here, *needed]:
            target = _at(tree, path)
            if not target.exists():
                if target.is_symlink():  # busybox had that name
                    target.unlink()
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)


def _at(tree: Path, path: Path) -> Path:
    return tree / str(path).lstrip("/")


def _make_source_image(image: Path, command: str) -> None:
    with tempfile.TemporaryDirectory(prefix="hafen-vm-") as name:
        tree = Path(name)
        for folder in ("src", "tests"):
            shutil.copytree(ROOT / folder, tree / folder)
        shutil.copy(ROOT / "pyproject.toml", tree)
        (tree / "job").write_text(f"CHECKOUT={ROOT}\nCOMMAND='{command}'\n")
        _make_image(tree, image, "64M")


def _make_image(tree: Path, image: Path, size: str) -> None:
    part = image.with_suffix(".part")
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, part, size],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/sbin:/usr/sbin"},
    )
    part.rename(image)
