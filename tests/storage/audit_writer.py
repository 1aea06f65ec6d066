"""A process of its own that appends to an audit log: writer URL KEYFILE COUNT."""

from __future__ import annotations

import sys
from pathlib import Path

from imagine.storage.audit_log import AuditLog
from imagine.storage.checkpoints import SigningKey
from imagine.storage.database import open_database


class NoKeys:
    def commitment_key(self, tenant_id: str, subject: str) -> bytes:
        raise AssertionError("This writer speaks of nobody.")


def main(url: str, pem: str, count: str) -> None:
    with open_database(url) as database:
        log = AuditLog(database, SigningKey.load_or_create(Path(pem)), NoKeys())
        for number in range(int(count)):
            log.append("tick", None, {"number": number}, "worker-1")


main(*sys.argv[1:])
