# SPDX-License-Identifier: Apache-2.0
"""What tests draw they draw from one seed: `make test` prints it, and takes it as `SEED=`."""

import os
import random


def seed() -> int:
    """The one of this run; one of its own for a test that is run without `make`."""
    return int(os.environ.get("SLACKWATER_SEED") or random.randrange(1 << 32))
