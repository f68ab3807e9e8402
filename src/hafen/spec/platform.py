"""`os/arch/variant` parsing and what this machine runs; pure: the machine's name is passed in.

Names as Go's GOARCH and the normalisation of github.com/containerd/platforms.
"""

from dataclasses import dataclass

from hafen.errors import InvalidArgument

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "arm64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "arm": ("arm", "v7"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "386": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "riscv64": ("riscv64", ""),
    "s390x": ("s390x", ""),
}


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image is made for."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def normal(place: Platform) -> Platform:
    """One name for what is the same: arm64 is arm64/v8, arm is arm/v7."""
    architecture, variant = _ARCHITECTURES.get(place.architecture, (place.architecture, ""))
    if place.variant:
        variant = "" if (architecture, place.variant) in (("arm64", "v8"), ("amd64", "v1")) else place.variant
    return Platform(place.os, architecture, variant)


def satisfies(place: Platform, wanted: Platform) -> bool:
    """Whether something for `place` is what was asked for; both normal. A variant counts where one was asked for."""
    return (place.os, place.architecture) == (wanted.os, wanted.architecture) and (
        not wanted.variant or place.variant == wanted.variant
    )


def of_machine(machine: str) -> Platform:
    """The platform of a Linux machine, by what `uname -m` calls it."""
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def parse(text: str) -> Platform:
    """`linux/arm64`, `linux/arm/v7`, `arm64`, `linux`; InvalidArgument for anything else."""
    parts = text.lower().split("/")
    if len(parts) > 3:
        raise InvalidArgument(f'"{text}": cannot parse platform specifier: invalid argument')
    if not 1 <= len(parts) <= 3 or not all(part and part.replace("_", "").isalnum() for part in parts):
        raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')
    if len(parts) == 1:
        if parts[0] in _ARCHITECTURES:
            return Platform("linux", *_ARCHITECTURES[parts[0]])
        raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')
    architecture, variant = _ARCHITECTURES.get(parts[1], (parts[1], ""))
    if len(parts) == 3:
        variant = "" if (architecture, parts[2]) == ("arm64", "v8") else parts[2]
    return Platform(parts[0], architecture, variant)


_RUNS = {
    "amd64": ("386",),
    "arm64": ("arm/v8", "arm/v7", "arm/v6", "arm/v5"),
}


def preference(machine: Platform) -> tuple[Platform, ...]:
    """What the machine can run, best first."""
    older: list[Platform] = []
    if machine.architecture == "arm" and machine.variant[1:].isdigit():
        older = [Platform("linux", "arm", f"v{number}") for number in range(int(machine.variant[1:]) - 1, 4, -1)]
    others = []
    for name in _RUNS.get(machine.architecture, ()):
        architecture, _, variant = name.partition("/")
        others.append(Platform("linux", architecture, variant))
    return (machine, *older, *others)
