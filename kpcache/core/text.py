"""Text from outside, made safe to show to a person."""


def printable(text: str, limit: int = 300) -> str:
    """``text`` with everything but printable characters escaped, cut to ``limit`` characters before that.

    A line feed or an escape sequence could otherwise forge lines of a log, or drive a terminal. Unlike
    ``contract.shown``, which is for messages that travel, it keeps letters of every alphabet.
    """
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cut)
