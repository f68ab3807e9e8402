"""Find the detach keys in what a client types, also across reads; pure."""


class DetachScanner:
    """Passes typed bytes through and holds back what may be the beginning of the key sequence.

    Docker's rule: the sequence ends the session and is never passed on; a beginning that is not completed is passed
    on with the byte that broke it. No keys: everything passes.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def rest(self) -> bytes:
        """At the end of what is typed: a beginning that will not be completed any more."""
        held, self._held = self._held, b""
        return held

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence is complete (what follows it is dropped)."""
        if not self._keys:
            return data, False
        data = self._held + data
        position = data.find(self._keys)
        if position >= 0:
            self._held = b""
            return data[:position], True
        for length in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:length]):
                self._held = data[-length:]
                return data[:-length], False
        self._held = b""
        return data, False
