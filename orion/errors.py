"""Everything that can go wrong, by kind. Each kind knows the exit code that `run` leaves with (0 fine, 1 gave up,
2 asked for wrongly, 4 a resource cannot be used). Imported by every process; imports nothing of the project.
"""

from dataclasses import dataclass

EXIT_OK = 0
EXIT_GAVE_UP = 1
EXIT_USAGE = 2
EXIT_RESOURCE = 4
EXIT_BOOT_FAILED = 70
"""Exit code of a worker process that never reached READY; not a crash, and not retried like one."""
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells count it: a command that Ctrl-C has ended, or a run whose exit was forced."""


class OrionError(Exception):
    """The root of every error that Orion raises on purpose; the text is written for the operator."""

    exit_code = EXIT_GAVE_UP


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the configuration: where (`streams.0.source`) and what."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(OrionError):
    """The configuration or the arguments are wrong; carries every problem found, not only the first."""

    exit_code = EXIT_USAGE

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class ResourceError(OrionError):
    """Something exists but cannot be used."""

    exit_code = EXIT_RESOURCE


class ModelError(ResourceError):
    """A model file cannot be read, run, or used for finding persons; says what was expected and what was found."""


class SourceError(ResourceError):
    """A source cannot be opened or read."""


class SharedMemoryError(ResourceError):
    """There is too little shared memory, or a segment is not what it should be."""


class InstanceRunningError(ResourceError):
    """Another process holds the instance's lock."""


class WireError(OrionError):
    """A message that is malformed, too large, of an unknown version or of an unknown type."""


class TornFrameError(OrionError):
    """A slot was written to while it was being read: the pixels are not one picture."""


class WorkersLostError(OrionError):
    """No worker is left to process frames."""
