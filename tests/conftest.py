"""Fixtures that every package's tests share."""

pytest_plugins = ["tests.fixtures.platform", "tests.fixtures.postgres", "tests.fixtures.standin"]
