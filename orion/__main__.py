"""Where every `orion` command begins. Spawned children import this module too, and pay for what it imports: nothing."""


def main() -> None:
    """Run the command line of this process and leave with its exit code."""
    import sys  # noqa: PLC0415

    from orion.signals import STOP_SIGNALS  # noqa: PLC0415

    if sys.argv[1:2] == ["run"]:
        STOP_SIGNALS.install()
    from orion.cli import main as run_command  # noqa: PLC0415

    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
