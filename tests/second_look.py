# SPDX-License-Identifier: Apache-2.0
"""What failed among all the others runs once more, alone: the end of `make test`.

Three thousand tests with real servers and real deadlines share few processors with each other. One that fails then and
passes alone, with everything that is drawn drawn the same, has met the load, as a rule; it is told, and looked for. One
that shows a defect fails again. Many that fail are no chance, and are not looked at again.
"""

import json
import os
import subprocess
import sys

MOST = 5
_HERE = os.path.dirname(os.path.abspath(__file__))
_CACHE = os.path.join(_HERE, "..", ".pytest_cache", "v", "cache", "lastfailed")


def failed() -> list[str]:
    """The tests that failed in the last run."""
    try:
        with open(_CACHE, encoding="utf-8") as f:
            return sorted(json.load(f))
    except FileNotFoundError:
        return []


def main(status: int) -> int:
    """Look again at what failed in a run that ended with `status`; returns the status that counts."""
    tests = failed()
    if status != 1 or not 0 < len(tests) <= MOST:
        return status
    print(f"\nOnce more, alone: {len(tests)} that failed among the others.", flush=True)
    again = [f"{_HERE}/isolated", "-m", "pytest", "-p", "no:xdist", "--last-failed", "--last-failed-no-failures=none"]
    left = subprocess.run(again, check=False).returncode
    if left == 0:
        for each in tests:
            print(f"FAILED AT FIRST, passed alone: {each}")
    return left


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
