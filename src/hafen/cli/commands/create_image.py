"""Images out of what is there: `commit` a container, `import` a root file system, `image bootstrap` a distribution."""

import sys

from hafen.cli.command import Call, Command
from hafen.cli.commands.archive import input_file
from hafen.cli.output import out
from hafen.cli.progress import ByteBar, Progress
from hafen.client import containers, images
from hafen.client.engine import Query
from hafen.client.transport import file_body
from hafen.spec.reference import parse


def _commit(call: Call) -> int:
    flags = call.flags
    repository, tag = "", ""
    if len(call.arguments) > 1:
        reference = parse(call.arguments[1]).with_default_tag()
        repository, tag = reference.repository, reference.tag or ""
    query: Query = {
        "container": call.arguments[0], "repo": repository, "tag": tag, "comment": flags.text("message"),
        "author": flags.text("author"), "changes": flags.values("change"),
        "pause": "" if flags.on("pause", True) else "0",
    }  # fmt: skip
    out(str(containers.commit(call.engine, query)["Id"]))
    return 0


def _import(call: Call) -> int:
    flags, source = call.flags, call.arguments[0]
    repository = call.arguments[1] if len(call.arguments) > 1 else ""
    if repository:
        parse(repository)
    query: Query = {
        "fromSrc": source if "://" in source else "-", "repo": repository,
        "message": flags.text("message"), "changes": flags.values("change"), "platform": flags.text("platform"),
    }  # fmt: skip
    if "://" in source:
        response = images.create(call.engine, query)
        Progress().show(call.engine.documents(response))
        return 0
    with input_file(source) as (file, size):
        bar = ByteBar("Importing", size)
        response = images.create(call.engine, query, bar.over(file_body(file)), {"Content-Type": "application/x-tar"})
        Progress().show(call.engine.documents(response))
    return 0


def _bootstrap(call: Call) -> int:
    sys.stdout.flush()
    response = images.bootstrap(call.engine, call.arguments[0], mirror=call.flags.text("mirror"))
    Progress(quiet=call.flags.on("quiet")).show(call.engine.documents(response))
    return 0


COMMIT = Command(
    _commit, "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Create a new image from a container's changes",
    """
-a, --author string    Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
-c, --change list      Apply Dockerfile instruction to the created image
-m, --message string   Commit message
-p, --pause            Pause container during commit (default true)
""", least=1, most=2,
)  # fmt: skip
IMPORT = Command(
    _import, "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    """
-c, --change list       Apply Dockerfile instruction to the created image
-m, --message string    Set commit message for imported image
    --platform string   Set platform if server is multi-platform capable
""", least=1,
)  # fmt: skip
BOOTSTRAP = Command(
    _bootstrap, "[OPTIONS] DISTRIBUTION:RELEASE", "Make an image of a Debian or Ubuntu release from its signed archive",
    """
    --mirror string   Package archive to use in place of the distribution's own
-q, --quiet           Suppress the progress output
""", least=1, most=1,
)  # fmt: skip
