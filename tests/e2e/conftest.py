# SPDX-License-Identifier: Apache-2.0
"""What end-to-end tests need of the machine; the same rules as for the tests of single parts."""

from tests.platform.conftest import pytest_runtest_setup

__all__ = ["pytest_runtest_setup"]
