"""`image bootstrap debian:bookworm`: a base system from the distribution's signed package archive, by debootstrap.

debootstrap checks the archive's signature against the distribution's keyring, each package against the signed lists,
and unpacks into a layer directory of ours; nothing is packed and unpacked again. The layer's tar exists only as the
digest that names it and as the recipe that can write it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass

from hafen.engine.feed import Reporter
from hafen.engine.imageimport import Staged, adopt, now, record
from hafen.engine.imagestore import SOURCE_LABEL, ImageStore
from hafen.errors import InvalidArgument, NotFound, System, Unavailable
from hafen.spec import reference
from hafen.spec.image import History, Image, RootFs
from hafen.spec.wire.image import ImageConfig, Progress
from hafen.storage import layers

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SUITE = re.compile(r"[a-z][a-z0-9-]*")
_TAIL = 20  # lines of its output that are shown when it fails


@dataclass(frozen=True, slots=True)
class Distribution:
    """How a distribution's packages are signed and what its numbers mean; where they are, debootstrap knows."""

    keyring: str
    keyring_package: str
    suites: dict[str, str]
    components: str


DISTRIBUTIONS = {
    "debian": Distribution(
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
        {
            "latest": "stable", "11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky",
            "bullseye": "bullseye", "bookworm": "bookworm", "trixie": "trixie", "forky": "forky",
            "sid": "sid", "stable": "stable",
            "testing": "testing", "unstable": "unstable", "oldstable": "oldstable",
        },
        "main",
    ),
    "ubuntu": Distribution(
        "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
        "ubuntu-keyring",
        {
            "latest": "noble", "20.04": "focal", "22.04": "jammy", "24.04": "noble", "26.04": "resolute",
            "focal": "focal", "jammy": "jammy", "noble": "noble", "questing": "questing", "resolute": "resolute",
        },
        "main,universe",
    ),
}  # fmt: skip
_ARCHITECTURES = {"amd64": "amd64", "arm64": "arm64", "386": "i386", "arm": "armhf", "ppc64le": "ppc64el"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be run, decided before anything is."""

    name: reference.Reference
    suite: str
    command: tuple[str, ...]  # the target directory comes before the mirror
    mirror: str | None  # None: the distribution's own archive
    keyring: str

    def describe(self) -> str:
        return " ".join((*self.command, *self.place("<layer>")))

    def place(self, directory: str) -> tuple[str, ...]:
        """The last arguments: what is put where, and from where."""
        return (self.suite, directory) if self.mirror is None else (self.suite, directory, self.mirror)

    @property
    def source(self) -> str:
        return self.mirror or "the distribution's archive"


def plan(name: str, architecture: str, mirror: str | None = None) -> Plan:
    """How `debian:bookworm` is made; NotFound for what cannot be bootstrapped."""
    ref = reference.parse(name).with_default_tag()
    distribution = DISTRIBUTIONS.get(ref.familiar_name)
    if distribution is None:
        known = " and ".join(sorted(DISTRIBUTIONS))
        raise NotFound(f"{ref.familiar} cannot be bootstrapped: only {known} have a signed package archive we know")
    tag = (ref.tag or "").removesuffix("-slim")
    suite = distribution.suites.get(tag)
    if suite is None:
        raise NotFound(f"{ref.familiar} cannot be bootstrapped: no such release; known are {_known(distribution)}")
    if mirror is not None and not re.match(r"(https?|file)://[^\s]+\Z", mirror):
        raise InvalidArgument(f"invalid mirror {mirror!r}: a URL is needed")
    debian = _ARCHITECTURES.get(architecture)
    if debian is None:
        raise NotFound(f"{ref.familiar} cannot be bootstrapped for {architecture}")
    command = (
        "debootstrap", "--variant=minbase", f"--arch={debian}", f"--keyring={distribution.keyring}",
        f"--components={distribution.components}", "--force-check-gpg",
    )  # fmt: skip
    return Plan(ref, suite, command, mirror, distribution.keyring)


def _known(distribution: Distribution) -> str:
    return ", ".join(sorted(tag for tag in distribution.suites if tag != "latest"))


def bootstrap(store: ImageStore, name: str, mirror: str | None = None) -> AsyncIterator[Progress]:
    """Messages of debootstrap, then what was made. The image is `name`, labelled `hafen.source=debootstrap`."""

    async def operation(report: Reporter[Progress]) -> None:
        await _bootstrap(store, plan(name, store.platform.architecture, mirror), report)

    return Reporter[Progress]().messages(operation)


def _installed(steps: Plan) -> str:
    """debootstrap's path; Unavailable with the command that installs what is missing."""
    program = shutil.which("debootstrap", path=PATH)
    if program is None:
        raise Unavailable("debootstrap is not installed: apt-get install debootstrap")
    if not os.path.exists(steps.keyring):
        package = next(found.keyring_package for found in DISTRIBUTIONS.values() if found.keyring == steps.keyring)
        raise Unavailable(f"the distribution's keys are not installed: apt-get install {package}")
    return program


async def _bootstrap(store: ImageStore, steps: Plan, report: Reporter[Progress]) -> None:
    program = _installed(steps)
    report(Progress(status=f"Bootstrapping {steps.name.familiar} from {steps.source} (signed by {steps.keyring})"))
    with store.leases.operation() as lease, ExitStack() as undo:
        directory = store.snapshots.stage()
        undo.callback(store.snapshots.unstage, directory)
        await _run((program, *steps.command[1:], *steps.place(directory)), report)
        report(Progress(status="Digesting the layer"))
        applied = await asyncio.to_thread(_finish, directory)
        layer = await adopt(store, Staged(directory, applied), None, lease)
        created = now()
        config = ImageConfig(
            cmd=["bash"],
            env=[f"PATH={PATH}"],
            labels={
                SOURCE_LABEL: "debootstrap",
                "hafen.source.mirror": steps.source,
                "hafen.source.suite": steps.suite,
            },
        )
        step = History(created=created, created_by=steps.describe(), comment="bootstrapped from signed packages")
        document = Image(
            architecture=store.platform.architecture,
            variant=store.platform.variant,
            config=config,
            created=created,
            history=[step],
            os="linux",
            rootfs=RootFs(diff_ids=[layer.diff_id]),
        )
        identity = await record(store, [layer], document, lease, name=steps.name)
        undo.pop_all()
    store.publish("tag", identity, steps.name.familiar)
    store.publish("import", identity, identity)
    report(Progress(status=f"Made {steps.name.familiar} {identity}"))


def _finish(directory: str) -> layers.Applied:
    """What a base image does not carry, then the layer's digest and recipe."""
    for name in ("var/cache/apt/archives", "var/lib/apt/lists", "debootstrap", "var/log"):
        _empty(f"{directory}/{name}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{directory}/etc/hostname")  # the machine's own, copied by debootstrap
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{directory}/etc/resolv.conf")
    return layers.describe(directory)


def _empty(directory: str) -> None:
    """Remove the files below a directory, keeping directories with their owners."""
    for where, _, files in os.walk(directory):
        for name in files:
            os.unlink(f"{where}/{name}")


async def _run(command: tuple[str, ...], report: Reporter[Progress]) -> None:
    """Run debootstrap to its end, its `I:` lines as progress. Stopped and awaited when this is cancelled."""
    environment = {"PATH": PATH, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    for variable in ("http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE"):
        if variable in os.environ:
            environment[variable] = os.environ[variable]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # so that what it starts can be ended with it
    )
    tail: list[str] = []
    try:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = raw.decode("utf-8", "replace").strip()
            if not line:
                continue
            tail = [*tail, line][-_TAIL:]
            if line.startswith("I: "):
                report(Progress(status=line[3:]))
        code = await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
        raise
    if code:
        errors = [line for line in tail if line.startswith(("E: ", "W: "))] or tail[-3:]
        raise System(f"debootstrap failed (exit code {code}): {'; '.join(errors)}")
