"""`inspect` of anything, and of containers, images, networks and volumes alone."""

import json
import sys
from collections.abc import Callable

from hafen.cli.command import Call, Command
from hafen.cli.output import err
from hafen.client import containers, images, networks, volumes
from hafen.client.engine import Document
from hafen.errors import HafenError, InvalidArgument, NotFound, Unavailable
from hafen.spec.evaluate import Template, to_json
from hafen.spec.template import TemplateError

BAD_TEMPLATE = 64

Getter = Callable[[str], Document]

# What the API leaves out where it is empty, and docker's templates find nevertheless.
_ABSENT_OF_IMAGES: Document = {
    "Author": "", "Comment": "", "Container": "", "DockerVersion": "", "OsVersion": "", "Parent": "", "Variant": "",
    "VirtualSize": 0,
}  # fmt: skip


def _show(call: Call, get: Getter) -> int:
    """What was found is printed, then what was not is reported."""
    form = call.flags.text("format")
    if form and form != "json":
        try:
            Template(form)
        except TemplateError as error:
            err(f"template parsing error: {error}")
            return BAD_TEMPLATE
    found: list[Document] = []
    problems: list[str] = []
    for reference in call.arguments:
        try:
            found.append(get(reference))
        except Unavailable:
            raise
        except HafenError as error:
            problems.append(error.message)
    if not form:
        sys.stdout.write(json.dumps(found, indent=4, ensure_ascii=False) + "\n")
    else:
        _formatted(form, found)
    for problem in problems:
        err(problem)
    return 1 if problems else 0


def _formatted(form: str, found: list[Document]) -> None:
    if form == "json":
        sys.stdout.write(to_json(found) + "\n")
        return
    template = Template(form)
    if not found:
        sys.stdout.write("\n")
    for document in found:
        try:
            text = template.render(_ABSENT_OF_IMAGES | document if "RootFS" in document else document)
        except TemplateError as error:
            sys.stdout.write("\n")
            raise InvalidArgument(f"template parsing error: {error}") from None
        sys.stdout.write(text + "\n")


def _container(call: Call) -> int:
    return _show(call, lambda name: containers.inspect(call.engine, name, size=call.flags.on("size")))


def _image(call: Call) -> int:
    return _show(call, lambda name: images.inspect(call.engine, name, platform=call.flags.text("platform")))


def _network(call: Call) -> int:
    return _show(call, lambda name: networks.inspect(call.engine, name, verbose=call.flags.on("verbose")))


def _volume(call: Call) -> int:
    return _show(call, lambda name: volumes.inspect(call.engine, name))


_OF_OTHERS = ("config", "node", "plugin", "secret", "service", "task")  # docker's types that this engine has none of


def _any(call: Call) -> int:
    getters: dict[str, Getter] = {
        "container": lambda name: containers.inspect(call.engine, name, size=call.flags.on("size")),
        "image": lambda name: images.inspect(call.engine, name),
        "network": lambda name: networks.inspect(call.engine, name),
        "volume": lambda name: volumes.inspect(call.engine, name),
    }
    kind = call.flags.text("type")
    if call.flags.changed("type") and kind not in getters:
        known = ", ".join(f'"{name}"' for name in sorted([*getters, *_OF_OTHERS]))
        raise InvalidArgument(f'unknown type: "{kind}": must be one of {known}')

    def first(name: str) -> Document:
        for candidate in [kind] if kind else getters:
            try:
                return getters[candidate](name)
            except NotFound:
                if kind:
                    raise
        raise NotFound(f"Error: No such object: {name}")

    return _show(call, first)


_FORMAT = "-f, --format string   @format\n"
_SIZE = "-s, --size            Display total file sizes\n"
ANY = Command(
    _any, "[OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on Hafen objects",
    _FORMAT + "-s, --size            Display total file sizes if the type is container\n"
    "    --type string     Only inspect objects of the given type", least=1,
)  # fmt: skip
CONTAINER = Command(
    _container, "[OPTIONS] CONTAINER [CONTAINER...]", "Display detailed information on one or more containers",
    _FORMAT + _SIZE, least=1,
)  # fmt: skip
IMAGE = Command(
    _image, "[OPTIONS] IMAGE [IMAGE...]", "Display detailed information on one or more images",
    _FORMAT + "    --platform string   Inspect a specific platform of the multi-platform image", least=1,
)  # fmt: skip
NETWORK = Command(
    _network, "[OPTIONS] NETWORK [NETWORK...]", "Display detailed information on one or more networks",
    _FORMAT + "-v, --verbose         Verbose output for diagnostics", least=1,
)  # fmt: skip
VOLUME = Command(
    _volume, "[OPTIONS] VOLUME [VOLUME...]", "Display detailed information on one or more volumes", _FORMAT, least=1
)
