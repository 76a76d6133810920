# SPDX-License-Identifier: Apache-2.0
"""Have SQLite read a database through: `python -I -S -B check.py PATH MODE PRAGMA [QUERY]`; answers with JSON.

A program of its own, since opening and closing a database drops the locks of the process that does it.
"""

import json
import sqlite3
import sys
from urllib.parse import quote


def main(path: str, mode: str, pragma: str, query: str = "") -> None:
    """Open it (`ro` or `rw`), check it, and ask the query, if there is one."""
    answer: dict[str, object] = {}
    try:
        connection = sqlite3.connect(f"file:{quote(path)}?mode={mode}", uri=True, timeout=5)
        answer["damage"] = [row[0] for row in connection.execute(f"PRAGMA {pragma}") if row[0] != "ok"]
        if query:
            row = connection.execute(query).fetchone()
            answer["answer"] = str(row[0]) if row else ""
        connection.close()
    except sqlite3.Error as e:
        answer |= {"error": str(e), "locked": "locked" in str(e)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
