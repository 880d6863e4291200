"""Requests made up from the OpenAPI document, valid and invalid ones, sent to the running suite.

`make security` sends many (SECURITY_EXAMPLES a route), any other run a few; which ones follows from the seed.
"""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.e2e.api import Project
from tests.security.made_requests import PROVIDER

#: In full: each border of each schema too, from outside and inside, and what is made, used and deleted in sequence.
_PHASES = "coverage,fuzzing,stateful" if "SECURITY_EXAMPLES" in os.environ else "fuzzing"
#: One at a time: Python 3.11 miscounts its recursion where several threads parse what schemathesis makes of schemas.
_WORKERS = "1" if "SECURITY_EXAMPLES" in os.environ else "2"
_EXAMPLES = os.environ.get("SECURITY_EXAMPLES", "3")
_SEED = "20260131"
_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
#: Nothing can be made up that is snappy and protobuf.
_BINARY = "/api/v1/write"
#: Would end what all the other requests are about.
_ENDS_THE_PROJECT = "deleteAProject"
_INGESTION = "^/(metrics/job|v1/metrics|api/v1/(metrics|statsd))"


async def _send_made_up(project: Project, folder: Path, *options: str) -> None:
    """Requests about the project, to the routes and with the credential that the options name."""
    known = f'[parameters]\n"path.projectId" = "{project.id}"\n"path.tenantId" = "{project.tenant_id}"\n'
    (folder / "schemathesis.toml").write_text(known)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{project.api.base_url}/api/v1/openapi.json"),
        *("--url", project.api.base_url, "--checks", ",".join(_CHECKS)),
        *("--max-examples", _EXAMPLES, "--seed", _SEED, "--workers", _WORKERS, "--phases", _PHASES),
        *("--suppress-health-check", "all", "--no-color", "--continue-on-failure", *options),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


@pytest.mark.timeout(3600)
async def test_made_up_requests_of_a_person_are_answered_as_the_document_says(project: Project, tmp_path: Path) -> None:
    leave_out = ("--exclude-path", _BINARY, "--exclude-operation-id", _ENDS_THE_PROJECT)
    await _send_made_up(project, tmp_path, *leave_out, "--header", f"Authorization: Bearer {project.token}")


@pytest.mark.timeout(3600)
async def test_made_up_batches_are_answered_as_the_document_says(project: Project, tmp_path: Path) -> None:
    await _send_made_up(
        project, tmp_path, "--include-path-regex", _INGESTION, "--header", f"X-API-Key: {project.secret_key}"
    )


@pytest.mark.timeout(3600)
async def test_made_up_requests_of_an_identity_provider_are_answered_as_the_document_says(
    project: Project, tmp_path: Path
) -> None:
    providers = f"/api/v1/tenants/{project.tenant_id}/identity-providers"
    provider = await project.api.expect(201, "POST", providers, PROVIDER, credential=project.token)
    token = f"{providers}/{provider['id']}/provisioning-token"
    made = await project.api.expect(201, "POST", token, credential=project.token)
    shown = ("--header", f"Authorization: Bearer {made['token']}")
    await _send_made_up(project, tmp_path, "--include-path-regex", "^/scim/", *shown)
