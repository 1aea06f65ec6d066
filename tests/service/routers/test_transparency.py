from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from imagine.errors import NotStored
from imagine.service import documents as papers
from imagine.service.wiring import Service
from imagine.storage.acts import POLICY_CLAUSES
from imagine.storage.checkpoints import VerifierKey

OWED = {
    "dpia-template.md",
    "model-cards.md",
    "policy.md",
    "records-of-processing.md",
    "retention-schedule.md",
}


def test_everybody_may_read_policy_models_and_papers(http: TestClient, service: Service) -> None:
    told = http.get("/v1/transparency").json()
    assert told["policy"]["sha256"] == service.safety.sha256
    assert told["policy"]["clauses"] == POLICY_CLAUSES
    assert {one["name"] for one in told["documents"]} >= OWED
    for one in told["documents"]:
        paper = http.get(one["url"])
        assert paper.status_code == 200 and paper.headers["content-type"].startswith(
            "text/markdown"
        )
        assert paper.text.startswith(f"# {one['title']}")
    assert VerifierKey.parse(told["audit_log_key"]) == service.log.verifier_key


def test_the_schedule_is_what_the_service_obeys(http: TestClient, service: Service) -> None:
    told = http.get("/v1/transparency").json()["retention"]
    rows = [tuple(row.values()) for row in told]
    assert rows == service.retention.policy.schedule()
    paper = http.get("/v1/transparency/retention-schedule.md").text
    assert service.retention.policy.schedule_markdown() in paper


@pytest.mark.parametrize("name", ["secrets.md", "..%2Fpyproject.toml", "policy"])
def test_nothing_else_is_served(http: TestClient, name: str) -> None:
    assert http.get(f"/v1/transparency/{name}").status_code == 404


def test_the_policy_paper_has_every_clause(service: Service) -> None:
    text = papers.document(service.retention.policy, "policy.md").text
    for clause, words in POLICY_CLAUSES.items():
        assert f"**{clause}** {words}" in text


def test_the_model_cards_name_every_model_and_what_it_was_trained_on(service: Service) -> None:
    text = papers.document(service.retention.policy, "model-cards.md").text
    cards = text.split("\n## ")[1:]
    assert len(cards) >= 8
    for card in cards:
        assert "**Trained on:**" in card and "**Licence:**" in card, card[:60]
    for name in service.safety.facts()["models"]:  # type: ignore[attr-defined]
        assert name in text


def test_an_installed_package_finds_its_papers(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / papers.INSTALLED
    folder.mkdir(parents=True)
    (folder / "policy.md").write_text("# A policy\n")

    class Installed:
        suffix = ".md"

        def as_posix(self) -> str:
            return f"../../../{papers.INSTALLED}/policy.md"

        def locate(self) -> Path:
            return folder / "policy.md"

    monkeypatch.setattr(papers, "FOLDER", Path("nowhere"))
    monkeypatch.setattr(papers.metadata, "files", lambda name: [Installed()])
    papers._files.cache_clear()
    try:
        found = papers.documents(service.retention.policy)
        assert set(found) == {"policy.md", "retention-schedule.md"}
        with pytest.raises(NotStored, match=r"policy\.md"):
            papers.document(service.retention.policy, "model-cards.md")
    finally:
        papers._files.cache_clear()


def test_the_papers_are_packed_into_the_wheel() -> None:
    import tomllib

    project = tomllib.loads((Path(papers.__file__).parents[2] / "pyproject.toml").read_text())
    data = project["tool"]["setuptools"]["data-files"]
    assert data == {papers.INSTALLED: [f"{papers.FOLDER.as_posix()}/*.md"]}
