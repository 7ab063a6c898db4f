"""The committed OpenAPI document is the one that the service serves."""

import subprocess
import sys

from tests.docs.pages import ROOT


def test_the_committed_document_is_what_the_service_serves() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "api", "openapi"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    committed = (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")

    assert printed.stdout == committed, "run `make openapi`"
