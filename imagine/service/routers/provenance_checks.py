"""/v1/provenance_checks: does this picture come from here? Needs no account and keeps nothing."""

from __future__ import annotations

import threading
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, UploadFile
from pydantic import BaseModel, Field

from imagine.errors import Busy
from imagine.provenance import MARKS_FOLDER, Provenance, ProvenanceReport, open_verifier
from imagine.safety.policy_set import weakened
from imagine.service.auth import anybody
from imagine.service.errors import BadParameter
from imagine.service.routers.asking import ServiceOf

router = APIRouter(prefix="/v1/provenance_checks", tags=["provenance"])

PICTURE_BYTES = 32 * 1024 * 1024
_BODY_BYTES = PICTURE_BYTES + 64 * 1024  # and the form around it
# Looking for a watermark in a stranger's large picture takes a second of a core that others need.
_AT_ONCE = threading.BoundedSemaphore(2)
_WAIT_SECONDS = 20.0


class ProvenanceCheck(BaseModel):
    """What the marks of a picture say; nothing about anybody in it."""

    object: Literal["provenance_check"] = "provenance_check"
    verdict: Provenance
    sentences: list[str] = Field(description="Why, for anybody to read; the first stands alone.")
    record: int | None = Field(description="Number of the audit record the marks lead to.")
    manifest: str = Field(description="`none`, `ours`, `another's`, with `, broken` if it is.")
    watermark_found: bool
    says_generated: bool = Field(description="Whether any mark, ours or not, says AI made it.")
    weakened_checks: list[str] = Field(
        description="Safety checks the operator of this service weakened or switched off."
    )

    @classmethod
    def of(cls, report: ProvenanceReport) -> ProvenanceCheck:
        """As it is told."""
        return cls(
            verdict=report.verdict,
            sentences=list(report.sentences),
            record=report.record,
            manifest=report.manifest,
            watermark_found=report.watermark_found,
            says_generated=report.says_generated,
            weakened_checks=list(report.weakened),
        )


@router.post("", max_body_size=_BODY_BYTES, dependencies=[Depends(anybody)])
def check_provenance(
    service: ServiceOf, picture: Annotated[UploadFile, File(description="PNG, JPEG or WebP.")]
) -> ProvenanceCheck:
    """Say whether a picture was made here and whether it was changed since.

    The picture is dropped when the answer is written. Neither its recipe nor any face in it is
    looked at.
    """
    data = picture.file.read(PICTURE_BYTES + 1)
    if len(data) > PICTURE_BYTES:
        most = PICTURE_BYTES // 2**20
        raise BadParameter("picture", f"The picture has more than {most} MB. Send a smaller copy.")
    limits = service.limits
    if not _AT_ONCE.acquire(timeout=_WAIT_SECONDS):
        raise Busy("Too many pictures are being looked at. Try again in a minute.", 60.0)
    try:
        verifier = open_verifier(limits.data_directory / MARKS_FOLDER, weakened=weakened(limits))
        return ProvenanceCheck.of(verifier.verify(data))
    finally:
        _AT_ONCE.release()
