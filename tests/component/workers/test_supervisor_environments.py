"""Jobs that bring requirements of their own."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tests.component.workers.node_harness import Node, assignment, bundle
from tests.component.workers.worker_service_fake import FakeService


def make_wheel(folder: Path, name: str, version: str) -> Path:
    """Write a wheel with one module whose `WHERE` says where it comes from."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/RECORD,,\n")
    return path


def test_requirements_are_installed_once_and_used_by_every_job_that_asks(
    any_node: Node, service: FakeService, tmp_path: Path
) -> None:
    wheel = make_wheel(tmp_path, "tinypackage", "1.2")
    environment = {"python": None, "requirements": [f"tinypackage @ file://{wheel}"]}
    script = "import sys, tinypackage, pytest; print(tinypackage.VERSION, sys.prefix)"
    code = bundle(train=script)

    outputs = []
    for number in (1, 2):
        document = assignment(service, code, environment=environment)
        attempt = service.add_attempt(f"att_{number}", document)
        exit_record = service.wait_for_exit(f"att_{number}", limit_s=90)
        assert exit_record["outcome"] == "succeeded", attempt.text(0, "stderr")
        outputs.append(attempt.text(0, "stdout"))
        assert ("tinypackage" in attempt.text(0, "stderr")) == (number == 1)

    (folder,) = (path for path in (any_node.folder / "environments").iterdir() if path.is_dir())
    assert outputs == [f"1.2 {folder}\n"] * 2


def test_requirements_that_do_not_exist_fail_with_the_words_of_pip(
    any_node: Node, service: FakeService, tmp_path: Path
) -> None:
    environment = {"python": None, "requirements": [f"nothing @ file://{tmp_path}/nothing.whl"]}
    document = assignment(service, bundle(train="pass"), environment=environment)
    attempt = service.add_attempt("att_1", document)

    exit_record = service.wait_for_exit("att_1", limit_s=90)

    assert (exit_record["outcome"], exit_record["reason"]) == ("failed", "SetupFailed")
    assert "not a valid wheel filename" in exit_record["message"]
    assert "not a valid wheel filename" in attempt.text(0, "stderr")


def test_a_build_ends_when_the_job_is_cancelled(
    any_node: Node, service: FakeService, tmp_path: Path
) -> None:
    package = tmp_path / "slow"
    package.mkdir()
    (package / "setup.py").write_text(
        f"open({str(tmp_path / 'began')!r}, 'w').close()\nimport time\ntime.sleep(1000)\n"
    )
    environment = {"python": None, "requirements": [f"slow @ file://{package}"]}
    document = assignment(service, bundle(train="pass"), environment=environment)
    attempt = service.add_attempt("att_1", document)
    service.wait_until(lambda: attempt.leases and attempt.text(0, "stderr"), limit_s=60)

    service.want("att_1", action="stop", reason="CancelRequested", grace_seconds=0)

    assert service.wait_for_exit("att_1", limit_s=10)["outcome"] == "stopped"
