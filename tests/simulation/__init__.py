# SPDX-License-Identifier: Apache-2.0
"""The simulation: sessions, coordinator, journal and recovery as they are, on a host that is not.

What is real: `sessions/`, `coordinator/`, `recovery/`, `hosts/local.py`, `hosts/mending.py`, the journal on a real
SQLite in memory, and in one world of fifty the real catalog, too. What is simulated is the world below and its time:

    virtual.py       an event loop whose time jumps, and blocking calls that take virtual time instead of threads
    world.py         processes, points, luck, and what was seen to go wrong; everything simulated passes `World.point`
    faults.py        what goes wrong and where it is aimed: crash, power cut, error, delay, duplicate, clock, signal …
    storage.py       filesystems with volumes, places and copies, some of them somebody else's
    trees.py         the effects on them, as those of the Btrfs provider · provider.py: two providers
    applications.py  applications that acknowledge numbered writes · writer.py: their writer
    guards.py        a model of the guard and of cgroups
    records.py       journal and catalog, with points around their writes; the catalog's twin
    kernel.py        what `system/` would ask the kernel for
    oracle.py        the eight things that must never be
    acts.py          what a user does · worlds.py: a world's life · bulk.py: many worlds, and the report

A world is its seed: the same seed has the same trace, to the last line. A world in which something is wrong is lived
again, and told, by `make simulate SEED=N` or `python -m tests.simulation N`. Without a seed worlds that nobody has seen
yet are lived for as long as one likes: `python -m tests.simulation --minutes 60`.

To add a fault: a kind in `faults.py` and a method of its name. To add an invariant: the oracle, and a sabotaged twin in
`test_simulation_twins.py` that it catches. Begin to read with `worlds.live`.
"""
