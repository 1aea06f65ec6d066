from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from imagine.errors import CheckMissing, InvalidInput, PolicyTampered
from imagine.safety.enrolment import Allowance, EnrolmentPolicy
from imagine.safety.nudity import nudity_weights
from imagine.safety.output_checks import CheckSettings, Thresholds
from imagine.safety.policy_set import (
    PolicySet,
    approve,
    approve_change,
    chosen_checks,
    describe_policy,
    policy_in_force,
    require_approved,
    start_up,
    switched_off,
    weakened,
    weakenings,
)
from imagine.safety.prompt_policy import shipped_policy
from imagine.settings import Settings

KEY = Ed25519PrivateKey.generate()
Events = list[tuple[str, dict[str, object]]]


def policy(
    checks: CheckSettings | None = None,
    enrolment: EnrolmentPolicy | None = None,
    models: dict[str, Path] | None = None,
) -> PolicySet:
    return describe_policy(
        shipped_policy(), checks or CheckSettings(), enrolment or EnrolmentPolicy(), models or {}
    )


WEAKER = CheckSettings(thresholds={"person_match": Thresholds(3.0, math.inf)})
STRICTER = CheckSettings(thresholds={"person_match": Thresholds(1.1, math.inf)})
OFF = CheckSettings(off=frozenset({"apparent_minors"}))


def test_the_same_policy_has_the_same_hash_and_any_change_another() -> None:
    hashes = [policy(checks).sha256 for checks in (None, WEAKER, STRICTER, OFF)]
    assert policy().sha256 == hashes[0] and len(hashes[0]) == 64
    assert len(set(hashes)) == 4


def test_model_files_are_part_of_the_hash(tmp_path: Path) -> None:
    weights = tmp_path / "model.onnx"
    weights.write_bytes(b"one")
    before = policy(models={"age": weights}).sha256
    weights.write_bytes(b"two")
    assert policy(models={"age": weights}).sha256 != before
    shipped = policy(models={"nudity": nudity_weights()})
    assert shipped.models["nudity"].startswith("864bb37bf8863564")


def test_a_missing_model_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(CheckMissing, match=r"'age'.*'gone\.onnx'"):
        policy(models={"age": tmp_path / "gone.onnx"})


def test_the_first_start_approves_and_the_next_ones_compare(tmp_path: Path) -> None:
    events: Events = []

    def record(kind: str, facts: object) -> None:
        events.append((kind, dict(facts)))  # type: ignore[call-overload]

    file = tmp_path / "state" / "approval.json"
    first = start_up(policy(), file, KEY, record)
    assert start_up(policy(), file, KEY, record) == first == policy().sha256
    assert [kind for kind, _ in events] == ["policy.approved"]


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        (policy(WEAKER), "limits.person_match"),
        (policy(STRICTER), "limits.person_match"),
        (policy(OFF), "off"),
        (policy(enrolment=EnrolmentPolicy(clear_age=18.0)), "enrolment.clear_age"),
        (replace(policy(), prompt_policy="0" * 64), "prompt_policy"),
        (replace(policy(), models={"nudity": "0" * 64}), "models.nudity"),
    ],
)
def test_a_change_nobody_approved_stops_the_start_and_is_named(
    tmp_path: Path, changed: PolicySet, part: str
) -> None:
    file = tmp_path / "approval.json"
    start_up(policy(), file, KEY, lambda kind, facts: None)
    with pytest.raises(PolicyTampered, match=f"differ: {part}\\."):
        start_up(changed, file, KEY, lambda kind, facts: None)


def test_an_approval_that_was_edited_or_signed_by_another_is_refused() -> None:
    approval = approve(policy(), KEY)
    require_approved(policy(), approval, KEY.public_key())
    edited = approval.replace(b"1.15", b"9.15")
    assert edited != approval
    stranger = Ed25519PrivateKey.generate().public_key()
    attempts = [(edited, KEY.public_key()), (approval, stranger)]
    attempts += [(rubbish, KEY.public_key()) for rubbish in (b"", b"[]", b"{}", b"\xff")]
    for content, key in attempts:
        with pytest.raises(PolicyTampered, match="damaged or signed by another key"):
            require_approved(policy(), content, key)


def test_approving_a_weaker_set_is_an_event_for_each_weakening(tmp_path: Path) -> None:
    file = tmp_path / "approval.json"
    start_up(policy(), file, KEY, lambda kind, facts: None)
    events: Events = []
    weaker = approve_change(
        policy(replace(WEAKER, off=frozenset({"apparent_minors"}))),
        file,
        KEY,
        "operator-1",
        lambda kind, facts: events.append((kind, dict(facts))),
    )
    assert weaker == (
        "output check apparent_minors switched off",
        "limits of person_match from 1.15 and inf to 3.0 and inf",
    )
    kinds = [kind for kind, _ in events]
    assert kinds == ["policy.weakened"] * 2 + ["policy.approved"]
    assert all(facts["actor"] == "operator-1" for _, facts in events)
    start_up(policy(replace(WEAKER, off=OFF.off)), file, KEY, lambda kind, facts: None)


def test_stricter_is_not_weaker() -> None:
    assert list(weakenings(policy().facts(), policy(STRICTER).facts())) == []
    assert list(weakenings(policy(OFF).facts(), policy().facts())) == []


@pytest.mark.parametrize(
    ("enrolment", "what"),
    [
        (EnrolmentPolicy(clear_age=18.0), "clear_age from 25 to 18"),
        (EnrolmentPolicy(age_gate=False), "age_gate from 1 to 0"),
        (EnrolmentPolicy(unverified=Allowance(20, 0.5)), "unverified_review_share from 1 to 0.5"),
        (EnrolmentPolicy(unverified=Allowance(99, 1.0)), "unverified_pictures_per_day"),
    ],
)
def test_weaker_enrolment_rules_are_weakenings(enrolment: EnrolmentPolicy, what: str) -> None:
    (words,) = weakenings(policy().facts(), policy(enrolment=enrolment).facts())
    assert what in words


def test_changed_prompt_rules_are_left_to_people_to_judge() -> None:
    other = replace(policy(), prompt_policy="0" * 64, lexicon_version="9")
    (words,) = weakenings(policy().facts(), other.facts())
    assert "for people to judge" in words and "9" in words


# What the operator chose in the settings


def test_nothing_is_switched_off_or_weaker_as_shipped() -> None:
    settings = Settings(checks_off=(), check_limits="")
    assert (switched_off(settings), weakened(settings)) == ((), ())
    assert policy_in_force(settings) == policy_in_force(settings)
    assert set(policy_in_force(settings).models) == {"nudity", "apparent_minors"}


def test_switches_and_weaker_limits_are_told_in_words() -> None:
    settings = Settings(
        checks_off=("person_match", "enrolment_age"),
        check_limits="apparent_minors=16/10, person_match=1.1/inf",
    )
    assert switched_off(settings) == ("enrolment_age", "person_match")
    assert weakened(settings) == (
        "check enrolment_age switched off",
        "check person_match switched off",
        "limits of apparent_minors at 16 and 10",
    )
    assert chosen_checks(settings).off == {"person_match"}
    assert policy_in_force(settings).enrolment["age_gate"] == 0.0
    assert policy_in_force(settings).sha256 != policy_in_force(Settings()).sha256


def test_a_model_nobody_asks_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> Path:
        raise CheckMissing("not installed")

    monkeypatch.setattr("imagine.safety.policy_set.age_weights", gone)
    both = Settings(checks_off=("apparent_minors", "enrolment_age"))
    assert set(policy_in_force(both).models) == {"nudity"}
    with pytest.raises(CheckMissing):
        policy_in_force(Settings(checks_off=("apparent_minors",)))


@pytest.mark.parametrize(
    ("off", "limits", "sentence"),
    [
        (("nonsense",), "", "'nonsense'.*Known: nudity"),
        ((), "nonsense=1/2", "'nonsense'"),
        ((), "nudity", "name=review/block"),
        ((), "nudity=a/b", "name=review/block"),
        ((), "nudity=0.9/0.95", "never raised"),
        ((), "apparent_minors=nan/1", "not numbers"),
    ],
)
def test_a_switch_or_limit_that_is_not_understood_stops_everything(
    off: tuple[str, ...], limits: str, sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        policy_in_force(Settings(checks_off=off, check_limits=limits))
