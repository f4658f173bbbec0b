"""Shared by all tests: only the list of fixture modules."""

pytest_plugins = [
    "tests.support.fix_model",
    "tests.support.fix_postgres",
    "tests.support.fix_stack",
    "tests.support.fix_rugged",
    "tests.support.fix_embedding",
]
