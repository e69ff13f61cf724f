"""Where the command begins: it reads its libraries so that Ctrl-C meanwhile says nothing odd."""

from __future__ import annotations

import signal


def start() -> None:
    """Runs the command line."""
    was_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if was_default:  # not where the command was started with Ctrl-C ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tianji_cli.interrupts import run_and_leave
    from tianji_cli.main import main

    if was_default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run_and_leave(main)


if __name__ == "__main__":
    start()
