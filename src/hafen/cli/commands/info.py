"""`version` and `info`."""

import sys

from hafen.cli.command import Call, Command
from hafen.cli.output import binary_size, err, out
from hafen.cli.report import report
from hafen.client import system
from hafen.client.engine import Document
from hafen.errors import Unavailable

VERSION_TEXT = "0.1.0"
API_VERSION = "1.51"


def _machine() -> str:
    import os

    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _client(call: Call) -> Document:
    python = ".".join(map(str, sys.version_info[:3]))
    return {
        "Version": VERSION_TEXT, "ApiVersion": API_VERSION, "PythonVersion": python, "Os": sys.platform,
        "Arch": _machine(), "Context": call.engine.endpoint.context,
    }  # fmt: skip


def _version(call: Call) -> int:
    if call.flags.on("short"):
        out(f"Hafen version {VERSION_TEXT}")
        return 0
    client, server, failure = _client(call), None, None
    try:
        server = system.version(call.engine)
    except Unavailable as error:
        failure = error
    form = call.flags.text("format")
    if form:
        from hafen.spec.evaluate import render, to_json

        document = {"Client": client, "Server": server}
        if form != "json" and server is None and failure and ".Server" in form:
            report(failure)
            return 1
        out(to_json(document) if form == "json" else render(form, document))
    else:
        _print_client(client)
        if server:
            _print_server(server)
    if failure:
        report(failure)
    return 1 if failure else 0


def _print_client(client: Document) -> None:
    out("Client:")
    for label, value in (
        ("Version", client["Version"]), ("API version", client["ApiVersion"]),
        ("Python version", client["PythonVersion"]),
        ("OS/Arch", f"{client['Os']}/{client['Arch']}"), ("Context", client["Context"]),
    ):  # fmt: skip
        out(f" {label + ':':18} {value}")


def _print_server(server: Document) -> None:
    platform = (server.get("Platform") or {}).get("Name")
    out(f"\nServer: {platform}".rstrip())
    for component in server.get("Components") or [{"Name": "Engine", "Version": server["Version"], "Details": {}}]:
        details = component.get("Details") or {}
        out(f" {component['Name']}:")
        out(f"  {'Version:':17} {component['Version']}")
        if component["Name"] != "Engine":
            if details.get("GitCommit"):
                out(f"  {'GitCommit:':17} {details['GitCommit']}")
            continue
        rows = [("API version", f"{server['ApiVersion']} (minimum version {server.get('MinAPIVersion', '')})")]
        rows += [
            (label, str(details.get(key) or server.get(key) or ""))
            for label, key in (("Go version", "GoVersion"), ("Git commit", "GitCommit"), ("Built", "BuildTime"))
        ]
        rows.append(("OS/Arch", f"{server.get('Os')}/{server.get('Arch')}"))
        rows.append(("Kernel", str(server.get("KernelVersion", ""))))
        for label, value in rows:
            if value:
                out(f"  {label + ':':17} {value}")


def _info(call: Call) -> int:
    client, form = _client(call), call.flags.text("format")
    document, failure = Document(), None
    try:
        document = system.info(call.engine)
    except Unavailable as error:
        failure = error
    document["ClientInfo"] = {"Debug": False, "Version": client["Version"], "Context": client["Context"]}
    if form:
        from hafen.spec.evaluate import render, to_json

        out(to_json(document) if form == "json" else render(form, document))
    else:
        out(f"Client:\n Version:    {client['Version']}\n Context:    {client['Context']}\n Debug Mode: false\n")
        out("Server:")
        if not failure:
            _print_info(document)
    if failure:
        report(failure)
        return 1
    for warning in document.get("Warnings") or []:
        err(warning)
    return 1 if document.get("ServerErrors") else 0


_COUNTS = ("Containers", " ContainersRunning", " ContainersPaused", " ContainersStopped", "Images")


def _print_info(info: Document) -> None:
    for key in _COUNTS:
        label = key.replace("Containers", "", 1) if key.startswith(" ") else key
        out(f" {label}: {info.get(key.strip(), 0)}")
    out(f" Server Version: {info.get('ServerVersion', '')}")
    out(f" Storage Driver: {info.get('Driver', '')}")
    for name, value in info.get("DriverStatus") or []:
        out(f"  {name}: {value}")
    out(f" Logging Driver: {info.get('LoggingDriver', '')}")
    out(f" Cgroup Driver: {info.get('CgroupDriver', '')}")
    out(f" Cgroup Version: {info.get('CgroupVersion', '1')}")
    plugins = info.get("Plugins") or {}
    out(" Plugins:")
    for key in ("Volume", "Network", "Log"):
        out(f"  {key}: {' '.join(plugins.get(key) or [])}")
    out(f" Swarm: {(info.get('Swarm') or {}).get('LocalNodeState', 'inactive')}")
    out(f" Runtimes: {' '.join(info.get('Runtimes') or {})}")
    out(f" Default Runtime: {info.get('DefaultRuntime', '')}")
    out(f" Init Binary: {info.get('InitBinary', '')}")
    for label, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        commit = (info.get(key) or {}).get("ID")
        if commit:
            out(f" {label} version: {commit}")
    if info.get("SecurityOptions"):
        out(" Security Options:")
        for option in info["SecurityOptions"]:
            pairs = [pair.partition("=") for pair in option.split(",")]
            out(f"  {pairs[0][2] or option}")
            for name, _, value in pairs[1:]:
                out(f"   {name.title()}: {value}")
    _print_host(info)


def _print_host(info: Document) -> None:
    for label, key in (("Kernel Version", "KernelVersion"), ("Operating System", "OperatingSystem"),
                       ("OSType", "OSType"), ("Architecture", "Architecture"), ("CPUs", "NCPU")):  # fmt: skip
        out(f" {label}: {info.get(key, '')}")
    out(f" Total Memory: {binary_size(info.get('MemTotal', 0))}")
    for label, key in (("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir")):
        out(f" {label}: {info.get(key, '')}")
    out(f" Debug Mode: {'true' if info.get('Debug') else 'false'}")
    if info.get("Debug"):
        for label, key in (("File Descriptors", "NFd"), ("Goroutines", "NGoroutines"), ("System Time", "SystemTime"),
                           ("EventsListeners", "NEventsListener")):  # fmt: skip
            out(f"  {label}: {info.get(key, '')}")
    for label, key in (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")):
        if info.get(key):
            out(f" {label}: {info[key]}")
    if info.get("Labels"):
        out(" Labels:")
        for label in info["Labels"]:
            out(f"  {label}")
    out(f" Experimental: {'true' if info.get('ExperimentalBuild') else 'false'}")
    registry = info.get("RegistryConfig") or {}
    if registry.get("InsecureRegistryCIDRs") or registry.get("IndexConfigs"):
        out(" Insecure Registries:")
        for name, entry in (registry.get("IndexConfigs") or {}).items():
            if not entry.get("Secure", True):
                out(f"  {name}")
        for network in registry.get("InsecureRegistryCIDRs") or []:
            out(f"  {network}")
    if registry.get("Mirrors"):
        out(" Registry Mirrors:")
        for mirror in registry["Mirrors"]:
            out(f"  {mirror}")
    out(f" Live Restore Enabled: {'true' if info.get('LiveRestoreEnabled') else 'false'}")
    if info.get("FirewallBackend"):
        out(f" Firewall Backend: {info['FirewallBackend'].get('Driver', '')}")
    out("")


_FORMAT = "-f, --format string   @format"
VERSION = Command(
    _version, "[OPTIONS]", "Show the version information",
    _FORMAT + "\n    --short   (hidden)", most=0,
)  # fmt: skip
INFO = Command(_info, "[OPTIONS]", "Display system-wide information", _FORMAT, most=0)
