# SPDX-License-Identifier: Apache-2.0
"""The internal database of a cell: sessions and replicas, one file of queries per noun.

SQLAlchemy over SQLite (WAL, synchronous=FULL, BEGIN IMMEDIATE), its schema brought up to date by Alembic migrations
when it is opened. Values go in and come out as `model` dataclasses; no other room sees a row.
"""
