"""The commands around the service: serve, keys, identity, db; over real connections."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from imagine.cli import main
from imagine.cli import serve as serve_command
from imagine.errors import Busy
from imagine.service.client import ImagineClient
from tests.service.conftest import House, selfie


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `imagine-me` in an empty folder, with everything kept in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMAGINE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("IMAGINE_MASTER_KEY", f"file:{tmp_path / 'secrets' / 'master.key'}")
    for name in ("DATABASE_URL", "BLOB_URL", "KEY_STORE_URL", "URL", "API_KEY"):
        monkeypatch.delenv(f"IMAGINE_{name}", raising=False)

    def run_command(*words: object) -> Outcome:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Outcome(status, *capsys.readouterr())

    return run_command


def test_a_person_can_be_added_shown_exported_and_deleted(
    run: Run, house: House, address: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(selfie())
    where = ("--url", address, "--key", house.token)
    added = run("identity", "add", "-p", "a.jpg", "--name", "Ada", "--agree", *where)
    identity = added.out.strip()
    assert added.status == 0 and identity.startswith("identity_")
    assert json.loads(run("identity", "list", "--json", *where).out)[0]["name"] == "Ada"
    shown = run("identity", "show", identity, *where).out
    assert "state: active" in shown and re.search(r"consent \S+: generate, until", shown)
    exported = run("identity", "export", identity, "-o", "me.zip", *where)
    assert exported.status == 0 and "not encrypted" in exported.err
    assert "index.json" in zipfile.ZipFile(tmp_path / "me.zip").namelist()
    assert (tmp_path / "me.zip").stat().st_mode & 0o077 == 0
    assert run("identity", "export", identity, "-o", "me.zip", *where).status == 6
    imported = run("identity", "import", "me.zip", "--agree", *where)
    assert imported.status == 0 and imported.out.strip() not in ("", identity)
    assert "state: active" in run("identity", "show", imported.out.strip(), *where).out
    deleted = run("identity", "delete", identity, "--yes", "--receipt", "gone.json", *where)
    assert deleted.status == 0
    certificate = json.loads((tmp_path / "gone.json").read_text())["certificate"]
    assert certificate["subject_id"] == identity
    assert run("identity", "show", identity, *where).status == 2


def test_a_file_that_is_no_export_is_not_imported(
    run: Run, house: House, address: str, tmp_path: Path
) -> None:
    (tmp_path / "me.zip").write_bytes(b"no zip")
    where = ("--url", address, "--key", house.token)
    refused = run("identity", "import", "me.zip", "--agree", *where)
    assert refused.status == 2 and "not a zip" in refused.err
    assert house.ask("GET", "/v1/identities").json()["data"] == []


def test_without_an_agreement_nothing_is_sent(
    run: Run, house: House, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(selfie())
    monkeypatch.setattr("typer.confirm", lambda *words, **more: False)
    where = ("--url", address, "--key", house.token)
    (tmp_path / "me.zip").write_bytes(b"PK")
    refused = run("identity", "add", "-p", "a.jpg", *where)
    assert refused.status == 10 and "nothing was sent" in refused.err
    assert run("identity", "import", "me.zip", *where).status == 10
    assert "taken" not in refused.out and "take this back" in refused.err
    assert run("identity", "delete", "identity_1", *where).status == 130
    assert house.ask("GET", "/v1/identities").json()["data"] == []


def test_a_service_that_is_not_there_is_named(run: Run) -> None:
    done = run("identity", "list", "--url", "http://127.0.0.1:9")
    assert done.status == 14 and "imagine-me serve" in done.err


def test_a_real_connection_streams_progress(house: House, address: str, slowly: None) -> None:
    steps: list[int] = []
    with ImagineClient(address, house.token) as im:
        im.generate(
            "in a forest",
            identity=house.enrol(),
            num_inference_steps=10,
            on_progress=lambda progress: steps.append(progress.step),
        )
    assert len(steps) >= 3 and steps == sorted(steps) and steps[-1] <= 10


def test_a_key_is_made_listed_and_revoked(run: Run) -> None:
    made = run("keys", "create", "web shop", "--role", "user", "--days", 3)
    assert made.status == 0 and re.fullmatch(r"imk_[0-9a-f]{16}_\S{43}\n", made.out)
    key_id = made.out.split("_")[1]
    (listed,) = json.loads(run("keys", "list", "--json").out)
    assert (listed["id"], listed["label"], listed["revoked_at"]) == (key_id, "web shop", None)
    assert made.out.split("_", 2)[2].strip() not in run("keys", "list").out
    assert run("keys", "revoke", key_id).status == 0
    assert json.loads(run("keys", "list", "--json").out)[0]["revoked_at"]
    assert run("keys", "revoke", "nothing").status == 2
    assert run("keys", "create", "x", "--role", "king").status == 2


def test_the_database_is_upgraded_on_demand(run: Run) -> None:
    first, second = run("db", "upgrade"), run("db", "upgrade")
    assert first.status == second.status == 0
    assert first.out == second.out and "at revision" in first.out


def test_a_service_without_keys_is_not_opened_to_a_network(run: Run, tmp_path: Path) -> None:
    done = run("serve", "--single-user", "--host", "0.0.0.0", "--backend", "fake")
    assert done.status == 2 and "keys create" in done.err
    assert not (tmp_path / "data").exists()


def test_an_unknown_model_is_refused_at_once(run: Run) -> None:
    done = run("serve", "--backend", "nonsense")
    assert done.status == 2 and "Known: " in done.err


def test_missing_packages_are_named_with_the_command(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> object:
        return None if name == "uvicorn" else find_spec(name)

    monkeypatch.setattr(serve_command, "find_spec", missing)
    done = run("serve")
    assert done.status == 5 and "imagine-yourself[serve]" in done.err


@pytest.mark.parametrize(
    "command", ["serve", "worker", "keys create", "identity add", "db upgrade"]
)
def test_every_command_has_help(run: Run, command: str) -> None:
    assert "Usage: imagine-me " + command in " ".join(run(*command.split(), "--help").out.split())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--one-process", "--worker-process"])
def test_the_service_starts_and_ends_as_a_command(tmp_path: Path, how: str) -> None:
    environment = {
        **os.environ,
        "IMAGINE_DATA_DIR": str(tmp_path / "data"),
        "IMAGINE_MASTER_KEY": f"file:{tmp_path / 'master.key'}",
    }
    words = ["-m", "imagine.cli", "serve", "--single-user", "--backend", "fake", "--port", "0", how]
    with subprocess.Popen(
        [sys.executable, *words], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        said = (line for line in process.stderr if line.startswith("Listening on"))
        address = next(said).split()[2]
        with ImagineClient(address) as im:
            assert im.identities() == []
            assert name_of_model(im) == "fake"  # opened by whichever process draws
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) in (0, 130)
    assert "Traceback" not in rest


def name_of_model(im: ImagineClient) -> str:
    """The model of the service, as soon as it is open."""
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up:
        try:
            return im.info.name
        except Busy:
            time.sleep(0.2)
    raise AssertionError("the model was not opened")
