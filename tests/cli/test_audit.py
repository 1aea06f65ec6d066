"""`imagine-me audit`: what it says of a good log and of a bad one, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagine.storage.audit_log import AuditLog
from imagine.storage.checkpoints import KEY_FILE_NAME, SigningKey
from imagine.storage.database import open_database
from imagine.storage.migrations import upgrade
from tests.cli.conftest import Run


class NoKeys:
    def commitment_key(self, tenant_id: str, subject: str) -> bytes:
        raise AssertionError("These logs speak of nobody.")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a log of five entries."""
    folder = tmp_path / "kept"
    monkeypatch.setenv("IMAGINE_DATA_DIR", str(folder))
    monkeypatch.setenv("IMAGINE_MASTER_KEY", f"file:{folder / 'master.key'}")
    monkeypatch.delenv("IMAGINE_DATABASE_URL", raising=False)
    with open_database(f"sqlite:///{folder / 'imagine.db'}") as database:
        upgrade(database)
        log = AuditLog(database, SigningKey.load_or_create(folder / KEY_FILE_NAME), NoKeys())
        for number in range(5):
            log.append("tick", None, {"number": number}, "worker-1")
    return folder


def change(data: Path, statement: str) -> None:
    url = f"sqlite:///{data / 'imagine.db'}"
    with open_database(url) as database, database.changing_schema() as connection:
        connection.exec_driver_sql(statement)


FLIP = "UPDATE audit_entries SET entry = replace(entry, '\"number\":3', '\"number\":9')"
CUT = "DELETE FROM audit_entries WHERE sequence = 4"


@pytest.mark.usefixtures("data")
def test_a_good_log_is_said_to_be_good(run: Run) -> None:
    done = run("audit", "verify")
    assert (done.status, done.out) == (0, "All 5 entries are as they were signed.\n")


@pytest.mark.parametrize(("statement", "said"), [(FLIP, "Entry 3 was changed"), (CUT, "Entry 4")])
def test_a_bad_log_ends_with_10_and_names_the_first_bad_entry(
    run: Run, data: Path, statement: str, said: str
) -> None:
    change(data, statement)
    done = run("audit", "verify")
    assert done.status == 10 and done.out == "" and done.err.startswith(said)


def test_the_finding_as_json(run: Run, data: Path) -> None:
    change(data, FLIP)
    done = run("audit", "verify", "--json")
    facts = json.loads(done.out)
    assert done.status == 10
    assert (facts["intact"], facts["first_bad"], facts["entries_confirmed"]) == (False, 3, 3)


@pytest.mark.usefixtures("data")
def test_an_export_is_checked_on_a_machine_without_the_database(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, kept = run("audit", "key").out.strip(), tmp_path / "kept.txt"
    kept.write_text(run("audit", "checkpoint").out, encoding="utf-8")
    assert run("audit", "export", "-o", "log.jsonl").out == "log.jsonl: 5 entries\n"
    monkeypatch.setenv("IMAGINE_DATA_DIR", str(tmp_path / "another machine"))
    monkeypatch.setenv("IMAGINE_MASTER_KEY", f"file:{tmp_path / 'another machine' / 'key'}")
    done = run("audit", "verify", "log.jsonl", "--public-key", key, "--checkpoint", kept)
    assert (done.status, done.err) == (0, "") and "All 5" in done.out
    assert "names itself" in run("audit", "verify", "log.jsonl").err


@pytest.mark.usefixtures("data")
def test_a_tampered_export_is_found(run: Run, tmp_path: Path) -> None:
    run("audit", "export", "-o", "log.jsonl")
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text().replace('"number":2', '"number":7'))
    done = run("audit", "verify", path)
    assert done.status == 10 and "Entry 2 was changed" in done.err


def test_a_log_that_was_cut_back_is_caught_by_a_kept_checkpoint(
    run: Run, data: Path, tmp_path: Path
) -> None:
    run("audit", "export", "-o", "early.jsonl")
    with open_database(f"sqlite:///{data / 'imagine.db'}") as database:
        log = AuditLog(database, SigningKey.load_or_create(data / KEY_FILE_NAME), NoKeys())
        log.append("tick", None, {}, "worker-1")
    kept = tmp_path / "kept.txt"
    kept.write_text(run("audit", "checkpoint").out, encoding="utf-8")
    assert run("audit", "verify", "early.jsonl").status == 0
    done = run("audit", "verify", "early.jsonl", "--checkpoint", kept)
    assert done.status == 10 and "Entry 5 is missing" in done.err


def test_a_broken_log_gives_no_checkpoint_to_keep(run: Run, data: Path) -> None:
    change(data, FLIP)
    done = run("audit", "checkpoint")
    assert done.status == 10 and done.out == ""


@pytest.mark.usefixtures("data")
def test_an_export_goes_to_stdout_and_replaces_nothing_unasked(run: Run, tmp_path: Path) -> None:
    run("audit", "export", "-o", "log.jsonl")
    assert run("audit", "export").out == (tmp_path / "log.jsonl").read_text()
    refused = run("audit", "export", "-o", "log.jsonl")
    assert refused.status == 6 and "--force" in refused.err
    assert run("audit", "export", "-o", "log.jsonl", "--force").status == 0
    assert run("audit", "export", "-o", "no/such/folder.jsonl").status == 6


@pytest.mark.usefixtures("data")
def test_the_public_key_may_be_in_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "audit.pub").write_text(run("audit", "key").out)
    assert run("audit", "verify", "--public-key", "audit.pub").status == 0
    assert run("audit", "verify", "--public-key", "missing.pub").status == 2


def test_looking_makes_no_database(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGINE_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.delenv("IMAGINE_DATABASE_URL", raising=False)
    for words in (["audit", "verify"], ["audit", "export"], ["jobs", "list"]):
        done = run(*words)
        assert done.status == 9 and "There is no database" in done.err
    assert not (tmp_path / "nothing").exists()


def test_a_database_of_another_version_is_refused(run: Run, data: Path) -> None:
    change(data, "UPDATE alembic_version SET version_num = 'm0001'")
    done = run("audit", "verify")
    assert done.status == 9 and "imagine-me db upgrade" in done.err


def test_a_file_and_a_database_at_once_are_refused(run: Run, data: Path) -> None:
    url = f"sqlite:///{data / 'imagine.db'}"
    assert run("audit", "verify", "log.jsonl", "--database", url).status == 2
    assert run("audit", "verify", "--database", url).status == 0
    assert run("audit", "verify", "--database", "mysql://x").status == 2


@pytest.mark.parametrize("command", ["verify", "export", "checkpoint", "key"])
def test_every_audit_command_has_help(run: Run, command: str) -> None:
    done = run("audit", command, "--help")
    assert done.status == 0 and f"Usage: imagine-me audit {command}" in done.out
