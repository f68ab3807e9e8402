"""Bytes that may not be UTF-8 as Go's JSON encoders see them; pure.

`bytes.decode(errors="hafen-go")` gives one lone surrogate, MARK, for each byte that is none: U+FFFD itself is not
escaped in Docker's output, but what stands for a bad byte is.
"""

import codecs

MARK = "\ud800"


def _replace_invalid(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return MARK * (error.end - error.start), error.end


codecs.register_error("hafen-go", _replace_invalid)


def decode(data: bytes) -> str:
    return data.decode(errors="hafen-go")
