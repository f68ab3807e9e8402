"""Every command by name, its one-line summary, and where it is defined: a module is imported when it is named."""

from typing import NamedTuple

_ENTRIES = """
attach         container attach.ATTACH        Attach local standard streams to a running container
commit         container create_image.COMMIT  Create a new image from a container's changes
cp             container copy.COPY            Copy files/folders between a container and the local filesystem
create         container run.CREATE           Create a new container
diff           container inside.DIFF          Inspect changes to files or directories on a container's filesystem
exec           container exec.EXEC            Execute a command in a running container
export         container inside.EXPORT        Export a container's filesystem as a tar archive
inspect        container inspect.CONTAINER    Display detailed information on one or more containers
kill           container lifecycle.KILL       Kill one or more running containers
logs           container inside.LOGS          Fetch the logs of a container
ls             container listing.CONTAINERS   List containers
pause          container lifecycle.PAUSE      Pause all processes within one or more containers
port           container inside.PORT          List port mappings or a specific mapping for the container
prune          container prune.CONTAINERS     Remove all stopped containers
rename         container lifecycle.RENAME     Rename a container
restart        container lifecycle.RESTART    Restart one or more containers
rm             container lifecycle.REMOVE     Remove one or more containers
run            container run.RUN              Create and run a new container from an image
start          container attach.START         Start one or more stopped containers
stats          container stats.STATS          Display a live stream of container(s) resource usage statistics
stop           container lifecycle.STOP       Stop one or more running containers
top            container inside.TOP           Display the running processes of a container
unpause        container lifecycle.UNPAUSE    Unpause all processes within one or more containers
update         container update.UPDATE        Update configuration of one or more containers
wait           container lifecycle.WAIT       Block until one or more containers stop, then print their exit codes

bootstrap      image     create_image.BOOTSTRAP Make an image of a Debian or Ubuntu release from its signed archive
history        image     image.HISTORY        Show the history of an image
import         image     create_image.IMPORT  Import the contents from a tarball to create a filesystem image
inspect        image     inspect.IMAGE        Display detailed information on one or more images
load           image     archive.LOAD         Load an image from a tar archive or STDIN
ls             image     listing.IMAGES       List images
prune          image     prune.IMAGES         Remove unused images
pull           image     registry.PULL        Download an image from a registry
push           image     registry.PUSH        Upload an image to a registry
referrers      image     image.REFERRERS      List signatures, SBOMs and attestations about an image
rm             image     image.REMOVE         Remove one or more images
save           image     archive.SAVE         Save one or more images to a tar archive (STDOUT by default)
tag            image     image.TAG            Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE

connect        network   network.CONNECT      Connect a container to a network
create         network   network.CREATE       Create a network
disconnect     network   network.DISCONNECT   Disconnect a container from a network
inspect        network   inspect.NETWORK      Display detailed information on one or more networks
ls             network   listing.NETWORKS     List networks
prune          network   prune.NETWORKS       Remove all unused networks
rm             network   network.REMOVE       Remove one or more networks

create         volume    volume.CREATE        Create a volume
clone          volume    volumecopy.CLONE     Make a volume with what another one has
export         volume    volumecopy.EXPORT    Export a volume as a tar archive
import         volume    volumecopy.IMPORT    Make a volume from a tar archive
inspect        volume    inspect.VOLUME       Display detailed information on one or more volumes
ls             volume    listing.VOLUMES      List volumes
prune          volume    prune.VOLUMES        Remove unused local volumes
restore        volume    volumecopy.RESTORE   Give a volume back what it had when a snapshot was made
rm             volume    volume.REMOVE        Remove one or more volumes
snapshot       volume    volumecopy.SNAPSHOT  Keep what a volume has now, list and remove that
update         volume    volume.UPDATE        Update a volume (cluster volumes only)

inspect        manifest  manifest.INSPECT     Display an image manifest, or manifest list

df             system    usage.DF             Show disk usage
dial-stdio     system    system.DIAL_STDIO    -
events         system    events.EVENTS        Get real time events from the server
fsck           system    fsck.FSCK            Check the engine's store, and repair it
info           system    info.INFO            Display system-wide information
prune          system    prune.SYSTEM         Remove unused data

fsck           registry  system.FSCK          Check a registry that does not run
retention      registry  system.RETENTION     Remove tags and manifests of a registry that have had their time
serve          registry  system.SERVE         Run a registry in the foreground
token          registry  system.TOKEN         Make, list and revoke access tokens of a registry

ls             context   context.LIST         List contexts
show           context   context.SHOW         Print the name of the current context
inspect        context   context.INSPECT      Display detailed information on one or more contexts

bash           completion completion.BASH     Generate the autocompletion script for bash
fish           completion completion.FISH     Generate the autocompletion script for fish
zsh            completion completion.ZSH      Generate the autocompletion script for zsh

build          -         registry.BUILD       Build an image from a Dockerfile
engine         -         system.ENGINE        Run the engine in the foreground
inspect        -         inspect.ANY          Return low-level information on Hafen objects
login          -         login.LOGIN          Authenticate to a registry
logout         -         login.LOGOUT         Log out from a registry
search         -         login.SEARCH         Search Docker Hub for images
version        -         info.VERSION         Show the version information
__complete     -         completion.COMPLETE  -
"""

GROUPS = {
    "container": "Manage containers",
    "context": "Show contexts",
    "image": "Manage images",
    "manifest": "Manage Docker image manifests and manifest lists",
    "network": "Manage networks",
    "registry": "Serve a registry and look after it",
    "system": "Manage the engine",
    "volume": "Manage volumes",
    "completion": "Generate the autocompletion script for the specified shell",
}

# Top-level names of the grouped commands, where they are not the same words.
SHORTCUTS = {
    "ps": "container ls",
    "images": "image ls",
    "rmi": "image rm",
    "tag": "image tag",
    "history": "image history",
    "import": "image import",
    "load": "image load",
    "save": "image save",
    "pull": "image pull",
    "push": "image push",
    "events": "system events",
    "info": "system info",
}

COMMON = ("run", "exec", "ps", "pull", "images", "version", "info")

_SYNONYMS = {"list": "ls", "remove": "rm", "ps": "ls"}


class Entry(NamedTuple):
    module: str
    attribute: str
    summary: str  # "-" keeps the command out of the help


def entries() -> dict[str, Entry]:
    """By canonical path: `container ls`, `version`."""
    found: dict[str, Entry] = {}
    for line in _ENTRIES.splitlines():
        if line:
            name, group, where, summary = line.split(None, 3)
            module, _, attribute = where.partition(".")
            found[name if group == "-" else f"{group} {name}"] = Entry(module, attribute, summary)
    return found


def find(words: list[str], table: dict[str, Entry]) -> tuple[str, int]:
    """(canonical path, how many words name it); ("", 0) where there is no such command."""
    if not words:
        return "", 0
    first = words[0]
    if first in GROUPS and len(words) > 1:
        second = words[1]
        for candidate in (second, _SYNONYMS.get(second, second)):
            if f"{first} {candidate}" in table and (candidate != "ls" or second != "ps" or first == "container"):
                return f"{first} {candidate}", 2
        return "", 0
    if first in SHORTCUTS:
        return SHORTCUTS[first], 1
    if first in table:
        return first, 1
    if f"container {first}" in table and first not in ("ls", "prune"):
        return f"container {first}", 1
    return "", 0


def top_level(table: dict[str, Entry]) -> dict[str, str]:
    """Summary by name of everything that can be typed first, without the groups."""
    names = {name: table[path].summary for name, path in SHORTCUTS.items()}
    for path, entry in table.items():
        group, _, name = path.rpartition(" ")
        if entry.summary != "-" and (not group or (group == "container" and name not in ("ls", "prune", "inspect"))):
            names[name] = entry.summary
    return dict(sorted(names.items()))


def members(group: str, table: dict[str, Entry]) -> dict[str, str]:
    """Summary by name of a group's commands."""
    prefix = group + " "
    return {
        path[len(prefix) :]: entry.summary
        for path, entry in sorted(table.items())
        if path.startswith(prefix) and entry.summary != "-"
    }
