"""Fixtures for all tests; each module's docstring says what it offers."""

import os

import hypothesis

from chassis import open_files

# Backing servers are started while gRPC is in use; its handlers for fork() would abort the new process before it
# becomes the server. Read by gRPC when it is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# A thousand idle connections have two ends each here.
open_files.allow_all()

# How long an example takes says what else the machine has to do. What must be fast measures it itself.
hypothesis.settings.register_profile(
    "pulsegate", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("pulsegate")

pytest_plugins = [
    "tests.suite_ports",
    "tests.suite_servers",
    "tests.suite_database",
    "tests.suite_issuer",
    "tests.suite_ldap",
    "tests.suite_saml_issuer",
    "tests.suite_running",
    "tests.suite_sink_servers",
]
