# SPDX-License-Identifier: Apache-2.0
"""Keep everybody from writing by a user's commands: `python -I -S -B keeper.py LOCK UNLOCK`, standard library only.

Each is one argument, split into words as a shell does and run without one. Who kills this process runs UNLOCK in its
stead, and kills what is left of LOCK, which belongs to the same process group.
"""

import shlex
import subprocess
import sys


def run(command: str) -> str:
    """Run a command to its end; why it failed, or nothing."""
    try:
        done = subprocess.run(  # noqa: TID251  # nothing of ours is imported here
            shlex.split(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, errors="replace", cwd="/", check=False,
        )  # fmt: skip
    except OSError as e:
        return f"{command}: {e.strerror}"
    said = " ".join(done.stderr.split())[-300:]
    return f"{command} ended with status {done.returncode}: {said or 'it said nothing'}" if done.returncode else ""


def say(answer: str) -> None:
    """Answer with one line."""
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()


def main(lock: str, unlock: str) -> None:
    """Obey orders until they end."""
    held = False
    say("ready")
    for line in sys.stdin:
        if line.strip() == "hold":
            held, why = True, run(lock)
            say(f"busy {why}" if why else "held")
        elif line.strip() == "release":
            held, why = False, run(unlock)
            say(f"lost {why}" if why else "released")
    if held:
        run(unlock)


if __name__ == "__main__":
    main(*sys.argv[1:])
