"""Fixtures for all tests; each module's docstring says what it offers."""

pytest_plugins = ["tests.suite_ports", "tests.suite_servers", "tests.suite_database", "tests.suite_running"]
