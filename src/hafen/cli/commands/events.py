"""`events`."""

from datetime import datetime

from hafen.cli.command import Call, Command
from hafen.cli.flags import moment
from hafen.cli.formats import evaluated, parse_failure, unescape
from hafen.cli.output import out
from hafen.client import system
from hafen.client.engine import Document
from hafen.spec.evaluate import Template, to_json
from hafen.spec.template import TemplateError


def _events(call: Call) -> int:
    flags = call.flags
    form = flags.text("format")
    template = None
    if form and form != "json":
        try:
            template = Template(unescape(form), strict=False)
        except TemplateError as error:
            raise parse_failure(error, beforehand=True) from None
    response = system.events(
        call.engine, since=moment(flags, "since", ""), until=moment(flags, "until", ""), filters=flags.values("filter")
    )
    for event in call.engine.documents(response):
        out(evaluated(template, event, beforehand=True) if template else to_json(event) if form else line(event))
        _flush()
    return 0


def _flush() -> None:
    import sys

    sys.stdout.flush()


def line(event: Document) -> str:
    """docker's own line: `TIME TYPE ACTION ID (name=value, ...)`."""
    nanoseconds = event.get("timeNano") or event["time"] * 1_000_000_000
    moment = datetime.fromtimestamp(nanoseconds // 1_000_000_000).astimezone()
    zone = moment.strftime("%z")
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    text = f"{moment.strftime('%Y-%m-%dT%H:%M:%S')}.{nanoseconds % 1_000_000_000:09d}{zone}"
    actor = event.get("Actor") or {}
    attributes = ", ".join(f"{name}={value}" for name, value in sorted((actor.get("Attributes") or {}).items()))
    words = [text, event.get("Type", ""), event.get("Action", ""), actor.get("ID", "")]
    return " ".join(words) + (f" ({attributes})" if attributes else "")


EVENTS = Command(
    _events, "[OPTIONS]", "Get real time events from the server",
    """
-f, --filter filter   Filter output based on conditions provided
    --format string   @format
    --since string    Show all events created since timestamp
    --until string    Stream events until this timestamp
""", most=0,
)  # fmt: skip
