# SPDX-License-Identifier: Apache-2.0
"""The internal database of a cell: sessions and replicas, one file of queries per noun.

SQLAlchemy over SQLite (WAL, synchronous=FULL, BEGIN IMMEDIATE), its schema brought up to date by Alembic migrations
when it is opened. Values go in and come out as `model` dataclasses; no other room sees a row.

`catalog.py` opening it · `sessions.py`, `replicas.py` the queries · `ids.py` ids, prefixes and `latest` · `schema.py`
tables and how values lie in them · `database.py` transactions and what their failures mean · `migrate.py`,
`migrations/` from one schema to the next. Whatever is imported here takes long to import: commands that need no catalog
do not import any of it.
"""
