"""`context ls`, `show`, `inspect`: Docker's contexts, which are read and never written here."""

import json
import os

from hafen.cli.command import Call, Command
from hafen.cli.formats import show
from hafen.cli.output import out
from hafen.client.address import DEFAULT_HOST, Choice, config_directory
from hafen.client.engine import Document
from hafen.errors import NotFound
from hafen.spec.evaluate import Row

_HEADERS = {"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR"}


def _known() -> dict[str, Document]:
    """meta.json by name, with the default that no file describes."""
    host = os.environ.get("HAFEN_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    description = "Current DOCKER_HOST based configuration" if host != DEFAULT_HOST else "This machine's own engine"
    default = {"Name": "default", "Metadata": {"Description": description}, "Endpoints": {"docker": {"Host": host}}}
    found: dict[str, Document] = {"default": default}
    directory = os.path.join(config_directory(Choice(), os.environ), "contexts", "meta")
    for key in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        try:
            with open(os.path.join(directory, key, "meta.json"), encoding="utf-8") as file:
                document = json.load(file)
            found[document["Name"]] = document
        except (OSError, ValueError, KeyError):
            continue  # docker's to repair; a context that is named is reported by the call that uses it
    return found


def _list(call: Call) -> int:
    current = call.engine.endpoint.context
    rows = []
    for name, document in sorted(_known().items()):
        metadata, endpoint = document.get("Metadata") or {}, (document.get("Endpoints") or {}).get("docker") or {}
        rows.append(Row("*formatter.clientContextContext", {
            "Name": name + (" *" if name == current and not call.flags.on("quiet") else ""), "Current": name == current,
            "Description": metadata.get("Description", ""), "DockerEndpoint": endpoint.get("Host", ""), "Error": "",
        }))  # fmt: skip
    show(rows, _HEADERS, list(_HEADERS), call.flags.text("format"), quiet="Name" if call.flags.on("quiet") else "")
    return 0


def _show(call: Call) -> int:
    out(call.engine.endpoint.context)
    return 0


def _inspect(call: Call) -> int:
    known = _known()
    documents = []
    for name in call.arguments or [call.engine.endpoint.context]:
        if name not in known:
            raise NotFound(f'context "{name}" does not exist')
        documents.append(known[name])
    out(json.dumps(documents, indent=4))
    return 0


LIST = Command(
    _list,
    "[OPTIONS]",
    "List contexts",
    "    --format string   @table\n-q, --quiet           Only show context names",
    most=0,
)
SHOW = Command(_show, "", "Print the name of the current context", most=0)
INSPECT = Command(_inspect, "[CONTEXT] [CONTEXT...]", "Display detailed information on one or more contexts")
