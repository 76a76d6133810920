# SPDX-License-Identifier: Apache-2.0
"""The parts of the writer `sqlite`.

`find` who has which database open · `describe` that as a component · `effects` stopping and starting · `programs` calls
of the programs `look.py` (the first bytes of files), `check.py` (SQLite's own checks) and `keeper.py` (the lock).

These are processes of their own, of the standard library only, since SQLite's locks are POSIX locks: whenever a process
closes a database file, by whatever descriptor, all locks of that process on it are gone (fcntl(2), "Record locking and
POSIX semantics"; "How To Corrupt An SQLite Database File", 2.2). We have databases of our own, which could be the ones
that are looked at.
"""
