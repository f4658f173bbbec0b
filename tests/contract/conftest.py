"""The suites are no test modules by name; their assertions shall tell as much."""

import pytest

pytest.register_assert_rewrite("tests.contract.suites")
