"""An error as people read it: its message, and what can be done about it."""

from hafen.cli.output import err
from hafen.errors import HafenError


def report(error: HafenError, prefix: str = "") -> None:
    from hafen.cli.hints import hint

    err(prefix + error.message)
    advice = hint(error)
    if advice:
        err(advice)


def system_text(error: OSError) -> str:
    """Go's wording, that scripts look for: `open /nosuch: no such file or directory`."""
    text = (error.strerror or str(error)).lower()
    return f"open {error.filename}: {text}" if error.filename else text
