# SPDX-License-Identifier: Apache-2.0
"""Rehearsing failures: what the writer and the provider `test` are told to do wrong, at which event, how often.

Begin with `file.py`, what an exercise says; `faults.py` brings a fault about, `weave.py` asks for one before every call
of a contract. Nothing here does anything unless the environment names an exercise.
"""
