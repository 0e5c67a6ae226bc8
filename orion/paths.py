"""Whether what a path names is there. Pure but for the look itself."""

from pathlib import Path


def why_absent(path: Path, kind: str) -> str | None:
    """Return why there is nothing at `path`, "no such ..." or "permission denied"; None where there is something, be it
    usable or not. `kind` is what it should be, as "file".
    """
    try:
        path.stat()
    except PermissionError:
        return "permission denied"
    except (OSError, ValueError):
        # A name that no file can have among them.
        return f"no such {kind}"
    return None
