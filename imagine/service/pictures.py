"""Facts about stored pictures, one or a page of them, without opening any."""

from __future__ import annotations

from sqlalchemy import select, tuple_

from imagine.errors import NotStored
from imagine.storage.database import Database
from imagine.storage.people import ImageFacts, image_facts
from imagine.storage.tables import ImageRow


class Pictures:
    """Looks pictures up by tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def facts(self, tenant_id: str, image_id: str) -> ImageFacts:
        """What may be told about one picture.

        Raises:
            NotStored: this tenant has no such picture.
        """
        with self._database.reading() as session:
            row = session.get(ImageRow, (tenant_id, image_id))
        if row is None:
            raise NotStored(f"There is no picture {image_id[:80]!r} here.")
        return image_facts(row)

    def page(self, tenant_id: str, limit: int, before: str | None) -> list[ImageFacts]:
        """At most `limit` pictures, newest first, behind the one called `before`.

        Raises:
            NotStored: this tenant has no picture called `before`.
        """
        place = (ImageRow.created_at, ImageRow.id)
        chosen = select(ImageRow).where(ImageRow.tenant_id == tenant_id)
        if before is not None:
            last = self.facts(tenant_id, before)
            chosen = chosen.where(tuple_(*place) < (last.created_at, last.id))
        newest = chosen.order_by(*(column.desc() for column in place)).limit(limit)
        with self._database.reading() as session:
            return [image_facts(row) for row in session.scalars(newest)]
