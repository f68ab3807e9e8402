"""`pull` and `push`; `build` is not there yet."""

import sys

from hafen.cli import credentials
from hafen.cli.command import Call, Command
from hafen.cli.output import out
from hafen.cli.progress import Progress
from hafen.client import images
from hafen.errors import InvalidArgument, NotImplemented
from hafen.spec.reference import parse


def _pull(call: Call) -> int:
    if call.flags.on("all-tags") and ":" in call.arguments[0].rpartition("/")[2]:
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    image = call.arguments[0]
    if not _tagged(image) and not call.flags.on("all-tags"):
        image += ":latest"
        if not call.flags.on("quiet"):
            out("Using default tag: latest")
    pull_image(call, image, platform=call.flags.text("platform"), quiet=call.flags.on("quiet"))
    out(str(parse(image)))
    return 0


def pull_image(call: Call, image: str, *, platform: str, quiet: bool, to_stderr: bool = False) -> None:
    """Raises NotImplemented where the engine cannot pull."""
    reference = parse(image).with_default_tag()
    repository = reference.familiar_name
    query = {"fromImage": repository, "tag": reference.digest or reference.tag or "", "platform": platform}
    sys.stdout.flush()
    response = images.create(
        call.engine, dict(query), headers={"X-Registry-Auth": credentials.header(call.settings, repository)}
    )
    Progress(sys.stderr if to_stderr else sys.stdout, quiet=quiet).show(call.engine.documents(response))


def _push(call: Call) -> int:
    repository, tag = call.arguments[0], ""
    if _tagged(repository):
        repository, _, tag = repository.rpartition(":")
    if call.flags.on("all-tags") and tag:
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    if not tag and not call.flags.on("all-tags"):
        tag = "latest"
        if not call.flags.on("quiet"):
            out("Using default tag: latest")
    response = images.push(
        call.engine, repository, tag, {"X-Registry-Auth": credentials.header(call.settings, repository)}
    )
    Progress(quiet=call.flags.on("quiet")).show(call.engine.documents(response))
    return 0


def _tagged(image: str) -> bool:
    return ":" in image.rpartition("/")[2] or "@" in image


def _absent(call: Call) -> int:
    raise NotImplemented(f"'hafen {call.path}' is not implemented yet")


_PULL_FLAGS = """
-a, --all-tags                Download all tagged images in the repository
    --disable-content-trust   Skip image verification (default true)
    --platform string         Set platform if server is multi-platform capable
-q, --quiet                   Suppress verbose output
"""
_PUSH_FLAGS = """
-a, --all-tags                Push all tags of an image to the repository
    --disable-content-trust   Skip image signing (default true)
-q, --quiet                   Suppress verbose output
"""
PULL = Command(_pull, "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", _PULL_FLAGS, least=1, most=1)
PUSH = Command(_push, "[OPTIONS] NAME[:TAG]", "Upload an image to a registry", _PUSH_FLAGS, least=1, most=1)
BUILD = Command(_absent, "[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile", interspersed=False)
