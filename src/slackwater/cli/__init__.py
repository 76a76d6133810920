# SPDX-License-Identifier: Apache-2.0
"""The command line: one file per noun. Commands call a session or a query and return values; `render/` shows them.

`main.py` the application and its only exit · one file per noun (`backup.py`, `replica.py`, ...) · `app.py` how every
command teaches · `options.py` what they have in common · `frame.py` where they work · `progress.py` what a session
tells while it runs · `render/`, `words.py` values for people · `answer/` values as JSON · `statuses.py` values as
exit statuses · `hints.py` other tools' words · `completion.py` names and ids after a TAB.

`--help`, `--version` and completion import none of the heavy rooms: whatever a command needs it imports when it runs.
"""
