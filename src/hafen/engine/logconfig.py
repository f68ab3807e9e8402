"""A container's log: which driver and options it gets, and what these make of its labels, variables and names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hafen.engine.shimlink import LogConfig as SpawnLog
from hafen.errors import InvalidArgument, System
from hafen.logs.driver import LogDriver, choose
from hafen.logs.options import check_common, is_cache_option, specific
from hafen.spec import units
from hafen.spec.evaluate import Row, Template
from hafen.spec.template import TemplateError
from hafen.spec.wire.hostconfig import LogConfig

if TYPE_CHECKING:
    from hafen.engine.records import Record

OWN_DRIVER = "local"
_DOCKERS_DRIVER = "json-file"
_FAILED = "failed to create task for container: failed to initialize logging driver: "


def check(wanted: LogConfig, drivers: Mapping[str, LogDriver]) -> None:
    """Driver and options as `create` and the engine's start refuse them (moby daemon/logger/factory.go)."""
    driver = choose(wanted.type, drivers)
    if driver.name == "none":  # Docker looks at no option of it
        return
    options = wanted.config or {}
    check_common(options)
    driver.validate(specific(options))


def completed(wanted: LogConfig, default: LogConfig, drivers: Mapping[str, LogDriver]) -> LogConfig:
    """With the engine's defaults, checked. The type is "" for the engine's own driver where none was chosen.

    A client that names options but no driver means Docker's default, so what `local` does not know chooses that.
    """
    own = wanted.type in ("", default.type)
    defaults = default.config or {}
    options = {key: value for key, value in defaults.items() if own or is_cache_option(key)} | (wanted.config or {})
    found = LogConfig(type=wanted.type or default.type, config=options)
    if wanted.type or default.type != OWN_DRIVER:
        check(found, drivers)
        return found
    try:
        check(found, drivers)
        return LogConfig(type="", config=options)
    except InvalidArgument:
        found = LogConfig(type=_DOCKERS_DRIVER, config=options)
        check(found, drivers)
        return found


def shown(recorded: LogConfig) -> LogConfig:
    """What clients see. A container that chose no driver says what it says at Docker: clients read output only from
    drivers that they know to keep it (docker-py's `run` returns None for `local`)."""
    return LogConfig(type=recorded.type or _DOCKERS_DRIVER, config=recorded.config or {})


def of_spawn(record: Record, directory: str) -> SpawnLog:
    """What the shim is told. System, with Docker's text, for a tag or a pattern that makes no sense."""
    wanted = record.host_config.log_config
    options = wanted.config or {}
    try:
        attributes = _attributes(record, options)
        tag = _tag(record, options.get("tag") or "{{.ID}}")
    except InvalidArgument as error:
        raise System(f"{_FAILED}{error}") from error
    if wanted.type == "json-file" and options.get("tag") and tag:
        attributes["tag"] = tag
    source = {
        "name": record.name,
        "tag": tag,
        "image_id": record.image_id,
        "image_name": record.image,
        "command": " ".join((record.path, *record.args)),
        "created": units.format_timestamp(record.created_ns),
    }
    return SpawnLog(wanted.type or OWN_DRIVER, directory, options, attributes, source)


def _attributes(record: Record, options: Mapping[str, str]) -> dict[str, str]:
    """The labels and variables that options choose, by name or by pattern."""
    environment = dict(entry.split("=", 1) for entry in record.config.env or () if "=" in entry)
    found: dict[str, str] = {}
    for option, values in (("labels", record.config.labels or {}), ("env", environment)):
        for key in options.get(option, "").split(","):
            if key in values:
                found[key] = values[key]
        if pattern := options.get(f"{option}-regex"):
            compiled = _compiled(pattern)
            found |= {key: value for key, value in values.items() if compiled.search(key)}
    return found


def _compiled(pattern: str) -> re.Pattern[str]:
    """Go's syntax is Python's, but for what neither labels nor variables need."""
    try:
        return re.compile(pattern)
    except re.error as error:
        reason = "missing closing )" if "missing )" in error.msg else error.msg
        raise InvalidArgument(f"error parsing regexp: {reason}: `{pattern}`") from None


def _tag(record: Record, template: str) -> str:
    fields = {
        "Config": record.host_config.log_config.config or {},
        "ContainerID": record.id,
        "ContainerName": f"/{record.name}",
        "ContainerEntrypoint": record.path,
        "ContainerArgs": list(record.args),
        "ContainerImageID": record.image_id,
        "ContainerImageName": record.image,
        "ContainerCreated": units.format_timestamp(record.created_ns),
        "ContainerEnv": record.config.env or [],
        "ContainerLabels": record.config.labels or {},
        "DaemonName": "docker",
        "Command": " ".join((record.path, *record.args)),
        "ID": record.id[:12],
        "FullID": record.id,
        "Name": record.name,
        "ImageID": record.image_id[:12],
        "ImageFullID": record.image_id,
        "ImageName": record.image,
        "Hostname": os.uname().nodename,
    }
    try:
        return Template(template).render(Row("*logger.Info", fields))
    except TemplateError as error:
        text = str(error).replace("template: :", "template: log-tag:", 1)
        raise InvalidArgument(text.replace('executing "" at', 'executing "log-tag" at', 1)) from None
