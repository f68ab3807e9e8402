"""`login`, `logout` and `search`."""

import getpass
import sys

from hafen.cli import credentials, terminal
from hafen.cli.command import Call, Command
from hafen.cli.credentials import Auth
from hafen.cli.formats import show
from hafen.cli.output import ellipsis, err, out
from hafen.client import images, system
from hafen.errors import InvalidArgument
from hafen.spec.evaluate import Row

_DESCRIPTION = 45


def _server(call: Call) -> str:
    if not call.arguments:
        return credentials.HUB
    host = call.arguments[0].partition("://")[2] if "://" in call.arguments[0] else call.arguments[0]
    host = host.partition("/")[0]
    return credentials.HUB if host in ("docker.io", "index.docker.io", "registry-1.docker.io") else host


def _login(call: Call) -> int:
    flags, server = call.flags, _server(call)
    user, password = flags.text("username"), flags.text("password")
    if flags.on("password-stdin"):
        if flags.changed("password"):
            raise InvalidArgument("conflicting options: cannot specify both --password and --password-stdin")
        if not user:
            raise InvalidArgument("the --password-stdin option requires --username to be set")
        password = sys.stdin.read().rstrip("\r\n")
    elif password:
        err("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    auth: Auth = {"username": user, "password": password, "serveraddress": server}
    if not user and not password and (kept := credentials.lookup(call.settings, server)):
        out("Authenticating with existing credentials...")
        auth = {**kept, "serveraddress": server}
    elif not user or not password:
        auth = _asked(auth)
    answer = system.authenticate(call.engine, dict(auth))
    if answer.get("IdentityToken"):
        auth = {**auth, "identitytoken": answer["IdentityToken"], "password": ""}
    if credentials.store(call.settings, call.settings_path, auth):
        err(
            f"\nWARNING! Your credentials are stored unencrypted in '{call.settings_path}'.\nConfigure a credential "
            "helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n"
        )
    out(str(answer.get("Status") or "Login Succeeded"))
    return 0


def _asked(auth: Auth) -> Auth:
    if not terminal.is_terminal(0):
        raise InvalidArgument("Error: Cannot perform an interactive login from a non TTY device")
    user = auth["username"] or input("Username: ").strip()
    password = auth["password"] or getpass.getpass("Password: ")
    if not user or not password:
        raise InvalidArgument("Error: Password Required" if user else "Error: Non-null Username Required")
    return {**auth, "username": user, "password": password}


def _logout(call: Call) -> int:
    server = _server(call)
    out(f"Removing login credentials for {server}")
    credentials.erase(call.settings, call.settings_path, server)
    return 0


_HEADERS = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}


def _search(call: Call) -> int:
    flags, term = call.flags, call.arguments[0]
    header = credentials.header(call.settings, term)
    found = images.search(call.engine, term, flags.number("limit"), flags.values("filter"), header)
    rows = []
    for item in sorted(found, key=lambda one: -int(one.get("star_count") or 0)):
        text = str(item.get("description") or "").replace("\n", " ").replace("\r", " ")
        rows.append(
            Row("formatter.SearchContext", {
                "Name": item.get("name", ""),
                "Description": text if flags.on("no-trunc") else ellipsis(text, _DESCRIPTION),
                "StarCount": str(item.get("star_count") or 0),
                "IsOfficial": "[OK]" if item.get("is_official") else "",
            })
        )  # fmt: skip
    show(rows, _HEADERS, list(_HEADERS), flags.text("format"))
    return 0


LOGIN = Command(
    _login, "[OPTIONS] [SERVER]", "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
    """
-p, --password string   Password or Personal Access Token (PAT)
    --password-stdin    Take the Password or Personal Access Token (PAT) from stdin
-u, --username string   Username
""", most=1,
)  # fmt: skip
LOGOUT = Command(
    _logout, "[SERVER]",
    "Log out from a registry.\nIf no server is specified, the default is defined by the daemon.", most=1,
)  # fmt: skip
SEARCH = Command(
    _search, "[OPTIONS] TERM", "Search Docker Hub for images",
    """
-f, --filter filter   Filter output based on conditions provided
    --format string   Pretty-print search using a Go template
    --limit int       Max number of search results
    --no-trunc        Don't truncate output
""", least=1, most=1,
)  # fmt: skip
