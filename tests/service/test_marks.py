"""The real marks of a service, which the other tests replace by plain ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imagine.core import Recipe
from imagine.provenance import MARKS_FOLDER, open_verifier
from imagine.provenance.verify import Provenance
from imagine.settings import Settings
from imagine.storage.audit_log import AuditLog
from imagine.storage.checkpoints import SigningKey
from imagine.storage.database import open_database
from imagine.storage.migrations import upgrade
from tests.doubles import double_crops
from tests.service.conftest import REAL_MARKING


class NoKeys:
    def commitment_key(self, tenant_id: str, subject: str) -> bytes:
        raise AssertionError("Pictures are logged without saying whose they are.")


def test_a_picture_of_the_service_leads_to_an_entry_of_its_audit_log(tmp_path: Path) -> None:
    limits = Settings(data_directory=tmp_path)
    with open_database(limits.database_place) as database:
        upgrade(database)
        log = AuditLog(database, SigningKey.load_or_create(tmp_path / "key.pem"), NoKeys())
        marking = REAL_MARKING(
            limits, lambda kind, facts: log.append(kind, None, facts, "service").sequence, "0" * 64
        )
        recipe = Recipe("on the moon", 7, 4, 2.0, 0.7, "fake", "fake-1", "ab" * 32, "0.1.0")
        marked = marking(np.asarray(double_crops()[0]), recipe)
        report = open_verifier(tmp_path / MARKS_FOLDER).verify(marked.to_bytes(".webp"))
        assert report.verdict is Provenance.UNTOUCHED
        assert marked.recipe is not None and report.record == marked.recipe.record > 0
        assert log.prove(report.record).entry.facts["kind"] == "picture.marked"
