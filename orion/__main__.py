"""Where every `orion` command begins. Spawned children import this module too, and pay for what it imports: nothing."""


def main() -> None:
    """Run the command line of this process and leave with its exit code."""
    import os  # noqa: PLC0415
    import signal  # noqa: PLC0415
    import sys  # noqa: PLC0415
    import threading  # noqa: PLC0415

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # What is imported here takes a while, and nothing is there yet that would have to end in order.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from orion import stdio  # noqa: PLC0415
    from orion.signals import STOP_SIGNALS, interruptible  # noqa: PLC0415

    def run() -> int:
        from orion.cli import main as run_command  # noqa: PLC0415

        return run_command(sys.argv[1:])

    stdio.open_what_is_closed()
    stdio.outlive_stderr()
    if sys.argv[1:2] == ["run"]:
        STOP_SIGNALS.install()
        code = run()
    else:
        code = interruptible(run)
    if threading.active_count() > 1:
        # A capture thread sits in a native call that cannot be ended. Everything else is torn down: leave without it,
        # since the interpreter's own end would pull the library away from under that call.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
