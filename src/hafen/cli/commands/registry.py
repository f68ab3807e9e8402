"""`pull` and `push`; `build` is not there yet."""

import sys

from hafen.cli import credentials
from hafen.cli.command import Call, Command
from hafen.cli.output import out
from hafen.cli.progress import Progress
from hafen.client import images
from hafen.errors import InvalidArgument, NotImplemented
from hafen.spec.reference import Reference, parse


def _pull(call: Call) -> int:
    name, every, quiet = parse(call.arguments[0]), call.flags.on("all-tags"), call.flags.on("quiet")
    if every and (name.tag or name.digest):
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    if not every:
        name = _with_default_tag(name, quiet)
    _pull_reference(call, name, platform=call.flags.text("platform"), quiet=quiet)
    out(str(name))
    return 0


def _with_default_tag(name: Reference, quiet: bool) -> Reference:
    if name.tag or name.digest:
        return name
    if not quiet:
        out("Using default tag: latest")
    return name.with_default_tag()


def pull_image(call: Call, image: str, *, platform: str, quiet: bool, to_stderr: bool = False) -> None:
    """Raises NotImplemented where the engine cannot pull."""
    _pull_reference(call, parse(image).with_default_tag(), platform=platform, quiet=quiet, to_stderr=to_stderr)


def _pull_reference(call: Call, reference: Reference, *, platform: str, quiet: bool, to_stderr: bool = False) -> None:
    repository = reference.familiar_name
    query = {"fromImage": repository, "tag": reference.digest or reference.tag or "", "platform": platform}
    sys.stdout.flush()
    response = images.create(
        call.engine, dict(query), headers={"X-Registry-Auth": credentials.header(call.settings, repository)}
    )
    Progress(sys.stderr if to_stderr else sys.stdout, quiet=quiet).show(call.engine.documents(response))


def _push(call: Call) -> int:
    name, every, quiet = parse(call.arguments[0]), call.flags.on("all-tags"), call.flags.on("quiet")
    if name.digest:
        raise InvalidArgument("cannot push a digest reference")
    if every and name.tag:
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    if not every:
        name = _with_default_tag(name, quiet)
    repository = name.familiar_name
    headers = {"X-Registry-Auth": credentials.header(call.settings, repository)}
    platform = call.flags.text("platform")
    response = images.push(
        call.engine, repository, name.tag or "", headers, platform=platform, referrers=call.flags.on("referrers")
    )
    Progress(quiet=quiet).show(call.engine.documents(response))
    if quiet:
        out(str(name))
    return 0


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
    --platform string         Push one platform alone, as an image without an index
    --referrers               Push along the signatures, SBOMs and attestations that are kept about the image
-q, --quiet                   Suppress verbose output
"""
PULL = Command(_pull, "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", _PULL_FLAGS, least=1, most=1)
PUSH = Command(_push, "[OPTIONS] NAME[:TAG]", "Upload an image to a registry", _PUSH_FLAGS, least=1, most=1)
BUILD = Command(_absent, "[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile", interspersed=False)
