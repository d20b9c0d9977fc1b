"""Fixtures that every package's tests share."""

pytest_plugins = [
    "tests.fixtures.workers",  # before any library that reads how many threads it may start
    "tests.fixtures.platform",
    "tests.fixtures.postgres",
    "tests.fixtures.object_store",
    "tests.fixtures.standin",
]
