# SPDX-License-Identifier: Apache-2.0
"""A server whose log is under way as fast as it goes, for tests of what is copied meanwhile."""

import contextlib
import threading
from collections.abc import Iterator

from slackwater.demo.cluster import Cluster


@contextlib.contextmanager
def storm(cluster: Cluster) -> Iterator[None]:
    """Segments begun, checkpoints made and segments recycled, as fast as it goes."""
    over = threading.Event()

    def blow() -> None:
        with cluster.connect(autocommit=True) as connection:
            while not over.is_set():
                connection.execute("SELECT pg_switch_wal()")
                connection.execute("CHECKPOINT")

    thread = threading.Thread(target=blow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
