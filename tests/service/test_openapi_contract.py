"""Schemathesis reads /openapi.json and asks all that it allows, and much that it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.conftest import House

# Not asked: that whatever fits the schema is accepted. Consent must be ticked, not only be there.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


@pytest.mark.slow
def test_no_request_finds_a_fault_or_an_answer_that_is_not_documented(
    house: House, address: str, tmp_path: Path
) -> None:
    house.token = house.key("admin")
    house.generate(house.enrol())
    words = [
        *("run", f"{address}/openapi.json", "--no-color", "-n", "15"),
        *("--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS)),
        *("-H", f"Authorization: Bearer {house.token}"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "Tested: " in done.stdout
