"""How well a job resumes: what decides it, and what a verification has shown of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.jobs import schemas
from models.queries.verifications import Shown
from scheduler.core.spec import content_hash

_DECISIVE = (
    "recipe",
    "entrypoint",
    "args",
    "framework",
    "environment",
    "config",
    "workers",
    "parallel",
    "sync",
    "env",
    "privacy",
    "pool",
)

NOT_VERIFIED = schemas.ResumeVerdict(
    verdict="unknown",
    reason="NotVerified",
    message="nobody has looked yet: trainmaster verify-resume, or POST /v1/jobs/verify-resume",
    verification_id=None,
    verified_at=None,
)


def hash_subject(document: Mapping[str, Any], code_sha256: str | None, version: str) -> str:
    """Return the hash of what decides how a job resumes.

    That is what runs, how it is set, over how many workers and in which pool, which stands for
    the kind of machine; not the data, the name, the limits or the policies. Two uploads of the
    same code are the same. Another version of the service may bring other recipes.

    Args:
        document: a whole spec.
        code_sha256: of the uploaded bundle, None for a recipe.
        version: of this service.
    """
    decisive = {name: document.get(name) for name in _DECISIVE}
    decisive["workers"] = document.get("workers") or _count(document.get("parallel"))
    decisive["gpus"] = (document.get("resources") or {}).get("gpus")
    return content_hash({**decisive, "code_sha256": code_sha256, "version": version})


def represent_resume(found: Shown | None) -> schemas.ResumeVerdict:
    """Return what a job shows of the verification that speaks for it."""
    if found is None:
        return NOT_VERIFIED
    return schemas.ResumeVerdict(
        verdict=schemas.read_verdict(found.verdict),
        reason=found.reason,
        message=found.message,
        verification_id=found.verification_id,
        verified_at=found.finished_at,
    )


def _count(parallel: Mapping[str, int] | None) -> int:
    count = 1
    for size in (parallel or {}).values():
        count *= size
    return count
