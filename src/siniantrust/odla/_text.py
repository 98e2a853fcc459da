"""Foreign error texts, fit for a one-line message."""

from __future__ import annotations

import re

_LIMIT = 400
_ORT_PREFIX = "[ONNXRuntimeError]"
# Where in ONNX Runtime's own source an error arose, with the function's whole signature.
_ORT_SOURCE = re.compile(r"/\S+\.(?:cc|cpp|h):\d+ .+\) (?=\S)")


def one_line(error: object) -> str:
    """Return an error's text as one line of at most 400 characters, without ONNX Runtime's own prefixes.

    What a terminal might obey, such as escape sequences in a hostile server's message, becomes a question mark.
    """
    text = " ".join(str(error).split())
    if text.startswith(_ORT_PREFIX):
        text = text.split(" : ", 3)[-1]
    text = _ORT_SOURCE.sub("", text, count=1)
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_LIMIT])
