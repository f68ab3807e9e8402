"""Options of log drivers: checked as Docker does it, with its texts; pure but for `stat` of a socket.

What `create` refuses is checked by `check`, in moby's order (daemon/logger/factory.go). What a driver finds wrong only
when the container starts raises the same InvalidArgument then.
"""

from collections.abc import Collection, Mapping

from hafen.errors import InvalidArgument, NotImplemented

Options = Mapping[str, str]

ATTRIBUTES = ("labels", "labels-regex", "env", "env-regex")
_ABSENT = frozenset({"awslogs", "gcplogs", "splunk"})
_CACHE = ("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
_COMMON = frozenset(("mode", "max-buffer-size", *_CACHE))
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_DURATIONS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def check_common(options: Options) -> None:
    """The options that every driver takes: how output is handed to it, and the copy that `docker logs` reads."""
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        try:
            parse_size(options["max-buffer-size"])
        except InvalidArgument as error:
            raise InvalidArgument(f"error parsing option max-buffer-size: {error}") from None
    if disabled := options.get("cache-disabled"):
        try:
            parse_bool(disabled)
        except InvalidArgument:
            raise InvalidArgument(f"invalid value for option cache-disabled: {disabled}") from None


def specific(options: Options) -> dict[str, str]:
    """Without those that every driver takes."""
    return {name: value for name, value in options.items() if name not in _COMMON}


def cache_options(options: Options) -> dict[str, str] | None:
    """The `local` driver's options for the copy of what a remote driver sends; None where there is to be none."""
    if options.get("cache-disabled") and parse_bool(options["cache-disabled"]):
        return None
    return {name.removeprefix("cache-"): options[name] for name in _CACHE[1:] if name in options}


def is_cache_option(name: str) -> bool:
    return name in _CACHE


def check_known(options: Options, known: Collection[str], text: str) -> None:
    """`text` is Docker's, with {} for the option's name."""
    for option in options:
        if option not in known:
            raise InvalidArgument(text.format(option))


def refuse_absent(name: str) -> None:
    """For a driver that there is not: NotImplemented where Docker has it, InvalidArgument elsewhere."""
    if name in _ABSENT:
        raise NotImplemented(f"the log driver {name} is not implemented")
    if name == "logentries":
        raise InvalidArgument("the logentries logging driver has been deprecated and removed")
    raise InvalidArgument(f'error looking up logging plugin {name}: plugin "{name}" not found')


def parse_size(text: str, thousand: int = 1024) -> int:
    """`10`, `10k`, `10KB`, `10kib`, `1.5g` (go-units RAMInBytes; FromHumanSize with 1000).

    InvalidArgument `invalid size: '10x'`.
    """
    number = text.lower().removesuffix("b").removesuffix("i").rstrip()
    unit = number[-1:] if number[-1:].isalpha() else ""
    try:
        size = float(number.removesuffix(unit)) * thousand ** _UNITS[unit]
    except (KeyError, ValueError):
        size = -1
    if not 0 <= size < 1 << 63:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(size)


def parse_bool(text: str) -> bool:
    """Go's strconv.ParseBool, with its error."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidArgument(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_count(text: str) -> int:
    """Go's strconv.Atoi, with its error."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def parse_unsigned(text: str, limit: int = 1 << 64) -> int:
    """Go's strconv.ParseUint, with its errors."""
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) >= limit:
        raise InvalidArgument(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def parse_duration(text: str) -> float:
    """Seconds in Go's `1h2m3.5s`, with its error. (spec.units has one, made of regular expressions: not lean.)"""
    rest = text.lstrip("+")
    seconds = 0.0
    if rest == "0":
        return 0.0
    try:
        if not rest:
            raise ValueError
        while rest:
            number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
            rest = rest[len(number) :]
            unit = next(unit for unit in ("ns", "us", "µs", "ms", "s", "m", "h") if rest.startswith(unit))
            rest = rest[len(unit) :]
            seconds += float(number) * _DURATIONS[unit]
    except (ValueError, StopIteration):
        raise InvalidArgument(f'time: invalid duration "{text}"') from None
    return seconds


def split_address(address: str) -> tuple[str, str, str]:
    """(scheme, host and port or what stands for them, path) of a URL; InvalidArgument for a port that is no number."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return "", "", address
    host, slash, path = rest.partition("/")
    port = host.rpartition("]")[2] if host.startswith("[") else host
    if ":" in port:
        number = port[port.index(":") + 1 :] if host.startswith("[") else port.rpartition(":")[2]
        if number and not number.isdigit():
            raise InvalidArgument(f'parse "{address}": invalid port ":{number}" after host')
    return scheme, host, slash + path


def split_port(host: str) -> tuple[str, str | None]:
    """Host without brackets, and its port; None without one."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name, rest[1:] if rest.startswith(":") else None
    name, colon, port = host.rpartition(":")
    return (name, port) if colon else (host, None)
