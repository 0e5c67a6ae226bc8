"""Addresses of sources as text: which parts are secret, and which can be read at all. Pure; used by every process that
shows an address to anybody.
"""

import re
from urllib.parse import SplitResult, urlsplit

HIDDEN = "***"

_SECRET_FIELD = re.compile(
    r"([\w.-]*(?:pass|pwd|psw|token|secret|key|auth|user|usr|login|account|cred|sign?)[\w.-]*=)[^&;/?#\s]*",
    re.IGNORECASE,
)


def mask(uri: str) -> str:
    """Return `uri` with user, password and fields that look like secrets hidden; a file's name stays as it is.

    Everything between `://` and the last `@` goes, since passwords with `/`, `?` or `@` in them are common: rather too
    much hidden than a part of one shown.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    if "@" in rest:
        rest = f"{HIDDEN}@{rest.rpartition('@')[2]}"
    return f"{scheme}://{_SECRET_FIELD.sub(lambda field: field[1] + HIDDEN, rest)}"


def split(uri: str) -> SplitResult:
    """Split a network address. Raises ValueError, with a text that holds nothing of the address, if it names no host
    or a port that is none.
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0:
        raise ValueError(
            "the address must read scheme://[user:password@]host[:port]/path; "
            "write special characters of a password as %XX (@ as %40, / as %2F, : as %3A)"
        )
    return parts
