# SPDX-License-Identifier: Apache-2.0
"""The effects made on this host: intent, effect, done; and the recovery that undoes.

One SQLite file per host, beside the catalog and not in it; it works without any catalog. `effects.py` is the contract
of an effect; `journal.py` writes an intent before each one and brings what was cut off to its end. Begin with
`Journal.run`.
"""
