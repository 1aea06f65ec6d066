from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("own_house")


@pytest.fixture
def own_house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGINE_DATA_DIR", str(tmp_path / "kept"))
    monkeypatch.setenv("IMAGINE_MASTER_KEY", f"file:{tmp_path / 'secrets' / 'master.key'}")
    monkeypatch.setenv("IMAGINE_SERVICE_BACKEND", "fake")


def test_show_names_what_is_switched_off(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Nothing is switched off" in run("policy", "show").out
    monkeypatch.setenv("IMAGINE_CHECKS_OFF", "person_match")
    assert "check person_match switched off" in run("policy", "show").out
    told = json.loads(run("policy", "show", "--json").out)
    assert told["switched_off"] == ["person_match"] and len(told["sha256"]) == 64


def test_a_weakened_policy_starts_nothing_until_it_is_approved(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("keys", "create", "shop").status == 0
    monkeypatch.setenv("IMAGINE_CHECKS_OFF", "person_match")
    refused = run("keys", "create", "shop")
    assert refused.status == 5 and "policy approve" in refused.err
    approved = run("policy", "approve", "--yes")
    assert approved.status == 0 and "output check person_match switched off" in approved.err
    assert run("keys", "create", "shop").status == 0
    assert run("audit", "verify").status == 0


def test_a_switch_nobody_knows_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGINE_CHECKS_OFF", "nonsense")
    done = run("policy", "show")
    assert done.status == 2 and "Known: nudity" in done.err


def test_registering_never_to_be_shown_and_taking_it_back(run: Run, selfie: Path) -> None:
    added = run("protect", "add", "--photo", selfie, "--yes")
    assert added.status == 0, added.err
    assert "dlib: 1" in run("protect", "count").out
    refused = run("generate", "reading", "--photo", selfie, "--backend", "fake")
    assert refused.status == 4 and "asked that no pictures" in refused.err
    assert run("protect", "withdraw", added.out.strip()).status == 0
    assert "Nobody is on the list" in run("protect", "count").out
    assert run("protect", "withdraw", added.out.strip()).status == 2


def test_a_list_of_nobody_trusted_is_not_imported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("{}")
    done = run("protect", "import", tmp_path / "list.json", "--trust", "ab" * 32)
    assert done.status == 2 and "not in our format" in done.err
    assert run("protect", "import", tmp_path / "list.json", "--trust", "zz").status == 2
    assert run("protect", "add", "--photo", "missing.jpg", "--yes").status == 2
    assert run("protect", "add", "--yes").status == 2
