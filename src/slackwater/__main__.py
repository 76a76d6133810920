# SPDX-License-Identifier: Apache-2.0
"""The command `slackwater`, also as `python -m slackwater`."""

import signal


def run() -> None:
    """Be the command. Ctrl-C while its modules are still being loaded ends it at once and without a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # what our parent ignores (nohup, a job of a script) stays ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from slackwater.cli import main

    signal.signal(signal.SIGINT, handler)
    main.run()


if __name__ == "__main__":
    run()
