import importlib
import pkgutil

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

import imagine.storage
from imagine.errors import DatabaseUnusable
from imagine.storage.database import Base, Database, open_database
from imagine.storage.migrations import current_revision, newest_revision, upgrade


def _import_every_model() -> None:
    for module in pkgutil.iter_modules(imagine.storage.__path__, "imagine.storage."):
        importlib.import_module(module.name)


def test_models_and_migrations_agree(database: Database) -> None:
    _import_every_model()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    assert current_revision(database) == newest_revision()
    assert upgrade(database) == newest_revision()


def test_an_empty_database_has_no_revision() -> None:
    with open_database("sqlite://") as database:
        assert current_revision(database) is None
        assert upgrade(database) == newest_revision()


def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'm9999'"))
    with pytest.raises(DatabaseUnusable, match="m9999"):
        upgrade(database)


def test_a_failed_upgrade_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    first = importlib.import_module("imagine.storage.migrations.versions.m0001_first_tables")
    assert first.revision == "m0001"
    with open_database("sqlite://") as database:

        def run_half(config: object, to: str) -> None:
            connection = config.attributes["connection"]  # type: ignore[attr-defined]
            connection.execute(text("CREATE TABLE half (id INTEGER)"))
            raise RuntimeError("power cut")

        monkeypatch.setattr("imagine.storage.migrations.command.upgrade", run_half)
        with pytest.raises(RuntimeError, match="power cut"):
            upgrade(database)
        with database.reading() as session:
            assert session.execute(text("SELECT count(*) FROM sqlite_master")).scalar() == 0
