"""All that decides what may be made, as one hash: rules, limits, switches and model files.

At start-up the set is compared with the one the operator approved; a difference nobody approved
stops the program, and a change that weakens a limit is an event of its own. Whoever can change the
code can remove this too: it proves that an unmodified installation was unmodified, no more.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from imagine.errors import CheckMissing, InvalidInput, PolicyTampered
from imagine.safety.apparent_age import age_weights
from imagine.safety.enrolment import AGE_GATE, EnrolmentPolicy
from imagine.safety.nudity import nudity_weights
from imagine.safety.output_checks import CHECKS, CheckSettings, RecordEvent, Thresholds
from imagine.safety.prompt_policy import PromptPolicy, shipped_policy
from imagine.settings import Settings

_LIMIT = re.compile(r"(\w+)=([^/,\s]+)/([^/,\s]+)")


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Everything that decides what may be made.

    Attributes:
        lexicon_version: of the prompt rules.
        prompt_policy: SHA-256, hex, of rules and the code that applies them.
        judges: names of the text judges.
        order: output checks in their order.
        off: output checks that are switched off.
        limits: review and block limit of each output check.
        enrolment: figures of the enrolment rules.
        models: SHA-256, hex, of each model file a check uses.
    """

    lexicon_version: str
    prompt_policy: str
    judges: tuple[str, ...]
    order: tuple[str, ...]
    off: tuple[str, ...]
    limits: Mapping[str, tuple[float, float]]
    enrolment: Mapping[str, float]
    models: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """The hash that goes into manifests and the log."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def canonical(self) -> bytes:
        """The set as JSON, the same bytes for the same set."""
        return json.dumps(self.facts(), sort_keys=True, separators=(",", ":")).encode()

    def facts(self) -> dict[str, object]:
        """The set as plain values, for manifests and `/v1/transparency`."""
        return {
            "lexicon_version": self.lexicon_version,
            "prompt_policy": self.prompt_policy,
            "judges": list(self.judges),
            "order": list(self.order),
            "off": list(self.off),
            # JSON has no infinity.
            "limits": {name: [str(value) for value in pair] for name, pair in self.limits.items()},
            "enrolment": dict(self.enrolment),
            "models": dict(self.models),
        }


def describe_policy(
    prompts: PromptPolicy,
    checks: CheckSettings,
    enrolment: EnrolmentPolicy,
    models: Mapping[str, Path],
) -> PolicySet:
    """Put together the set that is in force.

    Args:
        prompts: the prompt policy.
        checks: the output checks' settings.
        enrolment: the enrolment rules.
        models: name -> file of every model a check uses, e.g. {"nudity": nudity_weights()}.

    Raises:
        CheckMissing: a model file is not there.
    """
    limits = {name: checks.limits(name) for name in CHECKS}
    return PolicySet(
        lexicon_version=prompts.lexicon.version,
        prompt_policy=prompts.sha256,
        judges=tuple(judge.name for judge in prompts.judges),
        order=checks.order,
        off=tuple(sorted(checks.off)),
        limits={name: (limit.review, limit.block) for name, limit in limits.items()},
        enrolment=_enrolment_figures(enrolment),
        models={name: _file_hash(name, path) for name, path in sorted(models.items())},
    )


def chosen_checks(settings: Settings) -> CheckSettings:
    """The output checks as the operator chose them.

    Raises:
        InvalidInput: there is no such check, or its limits are not understood.
    """
    off = frozenset(name for name in settings.checks_off if name != AGE_GATE)
    return CheckSettings(off=off, thresholds=dict(_chosen_limits(settings.check_limits)))


def chosen_enrolment(settings: Settings, policy: EnrolmentPolicy) -> EnrolmentPolicy:
    """The enrolment rules with the operator's switch."""
    return replace(policy, age_gate=AGE_GATE not in settings.checks_off)


def switched_off(settings: Settings) -> tuple[str, ...]:
    """Names of the checks that the operator switched off, for the verify page and for health.

    Nudity stands here too when it was named, although that counts only for pictures of nobody.
    """
    chosen_checks(settings)  # refuses unknown names
    return tuple(sorted(set(settings.checks_off)))


def weakened(settings: Settings) -> tuple[str, ...]:
    """What this installation allows that the shipped one does not, in words."""
    usual, checks = CheckSettings(), chosen_checks(settings)
    words = [f"check {name} switched off" for name in switched_off(settings)]
    for name, limits in checks.thresholds.items():
        if limits.is_weaker_than(usual.limits(name)):
            words.append(f"limits of {name} at {limits.review:g} and {limits.block:g}")
    return tuple(words)


def policy_in_force(settings: Settings, enrolment: EnrolmentPolicy | None = None) -> PolicySet:
    """The set that the settings of this installation put in force.

    Args:
        settings: the operator's switches and limits.
        enrolment: figures of the enrolment rules; None takes the usual ones.

    Raises:
        CheckMissing: the model of a check that is not switched off is not there.
        InvalidInput: a switch or limit is not understood.
    """
    models = {"nudity": nudity_weights()}  # needed even when switched off
    if not {"apparent_minors", AGE_GATE} <= set(settings.checks_off):
        models["apparent_minors"] = age_weights()
    rules = chosen_enrolment(settings, enrolment or EnrolmentPolicy())
    return describe_policy(shipped_policy(), chosen_checks(settings), rules, models)


def as_word(fact: object) -> object:
    """A fact as the audit log takes it: a sentence becomes one word."""
    if not isinstance(fact, str):
        return fact
    return re.sub(r"[^A-Za-z0-9_.:/+=-]+", "_", fact).lstrip("_.:/+=-")[:120] or "none"


def _chosen_limits(text: str) -> Iterator[tuple[str, Thresholds]]:
    for part in text.replace(",", " ").split():
        found = _LIMIT.fullmatch(part)
        try:
            if found is None:
                raise ValueError
            name, review, block = found[1], float(found[2]), float(found[3])
        except ValueError as error:
            raise InvalidInput(
                f"IMAGINE_CHECK_LIMITS has {part[:60]!r}. Write name=review/block, e.g. "
                "apparent_minors=21/16."
            ) from error
        usual = CHECKS.get(name)
        higher_is_worse = usual.thresholds.higher_is_worse if usual else True
        yield name, Thresholds(review, block, higher_is_worse)


def approve(policy: PolicySet, key: Ed25519PrivateKey) -> bytes:
    """Sign a set: the approval file that start-up compares with."""
    approval = {
        "policy": policy.canonical().decode(),
        "signature": key.sign(policy.canonical()).hex(),
    }
    return json.dumps(approval, indent=2).encode()


def require_approved(policy: PolicySet, approval: bytes, key: Ed25519PublicKey) -> None:
    """Refuse to start with a set that was not approved.

    Raises:
        PolicyTampered: the approval is damaged or signed by another key, or the set in force
            differs; the message names what differs.
    """
    approved = _read_approval(approval, key)
    if approved != policy.facts():
        names = ", ".join(sorted(_differences(approved, policy.facts())))
        raise PolicyTampered(
            f"The safety policy in force is not the approved one; these parts differ: {names}. "
            "If you changed or upgraded them on purpose, run: imagine-me policy approve. If not, "
            "reinstall."
        )


def start_up(
    policy: PolicySet, approval_file: Path, key: Ed25519PrivateKey, record_event: RecordEvent
) -> str:
    """The start-up check: approve the first set ever seen, afterwards only the approved one.

    Returns:
        The hash of the set.

    Raises:
        PolicyTampered: as `require_approved`.
    """
    if approval_file.exists():
        require_approved(policy, approval_file.read_bytes(), key.public_key())
    else:
        approval_file.parent.mkdir(parents=True, exist_ok=True)
        _write(approval_file, approve(policy, key))
        record_event("policy.approved", {"policy_hash": policy.sha256, "first": True})
    return policy.sha256


def approve_change(
    policy: PolicySet,
    approval_file: Path,
    key: Ed25519PrivateKey,
    actor: str,
    record_event: RecordEvent,
) -> tuple[str, ...]:
    """Approve a changed set; every weakening in it is an event before it takes force.

    Args:
        policy: the new set.
        approval_file: the approval of the old one.
        key: the operator's.
        actor: who approves it, as the log should name them.
        record_event: gets "policy.weakened" for each weakening, then
            "policy.approved".

    Returns:
        The weakenings in words.

    Raises:
        PolicyTampered: the old approval is damaged or signed by another key.
    """
    old = _read_approval(approval_file.read_bytes(), key.public_key())
    weaker = tuple(weakenings(old, policy.facts()))
    for words in weaker:
        record_event("policy.weakened", {"actor": actor, "what": words})
    record_event("policy.approved", {"actor": actor, "policy_hash": policy.sha256})
    _write(approval_file, approve(policy, key))
    return weaker


def weakened_since(
    policy: PolicySet, approval_file: Path, key: Ed25519PrivateKey
) -> tuple[str, ...]:
    """What approving a set would weaken, in words; nothing where none was approved yet.

    Raises:
        PolicyTampered: the approval is damaged or signed by another key.
    """
    if not approval_file.exists():
        return ()
    old = _read_approval(approval_file.read_bytes(), key.public_key())
    return tuple(weakenings(old, policy.facts()))


def weakenings(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    """What a new set allows that the old one did not, or cannot be compared, in words.

    Args:
        old: `PolicySet.facts()` of the set before.
        new: likewise of the set after.
    """
    for name in sorted(_texts(new, "off") - _texts(old, "off")):
        yield f"output check {name} switched off"
    for name, limits in _limits(new).items():
        before = _limits(old).get(name)
        if before is not None and limits.is_weaker_than(before):
            yield (
                f"limits of {name} from {before.review} and {before.block} "
                f"to {limits.review} and {limits.block}"
            )
    for name in sorted(_texts(old, "judges") - _texts(new, "judges")):
        yield f"text judge {name} removed"
    if old.get("prompt_policy") != new.get("prompt_policy"):
        yield (
            f"prompt rules changed from version {old.get('lexicon_version')} "
            f"to {new.get('lexicon_version')}; whether they are weaker is for people to judge"
        )
    yield from _enrolment_weakenings(_figures(old), _figures(new))


# Whether a higher figure of the enrolment rules is the weaker one.
_HIGHER_IS_WEAKER = {
    "clear_age": False,
    "age_gate": False,
    "listed_ratio": False,
    "verified_pictures_per_day": True,
    "verified_review_share": False,
    "unverified_pictures_per_day": True,
    "unverified_review_share": False,
}


def _enrolment_figures(policy: EnrolmentPolicy) -> dict[str, float]:
    return {
        "clear_age": policy.clear_age,
        "age_gate": float(policy.age_gate),
        "listed_ratio": policy.listed_ratio,
        "verified_pictures_per_day": float(policy.verified.pictures_per_day),
        "verified_review_share": policy.verified.review_share,
        "unverified_pictures_per_day": float(policy.unverified.pictures_per_day),
        "unverified_review_share": policy.unverified.review_share,
    }


def _enrolment_weakenings(old: Mapping[str, float], new: Mapping[str, float]) -> Iterator[str]:
    for name, higher_is_weaker in _HIGHER_IS_WEAKER.items():
        before, after = old.get(name, math.nan), new.get(name, math.nan)
        if (after > before) if higher_is_weaker else (after < before):
            yield f"enrolment {name} from {before:g} to {after:g}"


def _read_approval(approval: bytes, key: Ed25519PublicKey) -> dict[str, object]:
    try:
        data = json.loads(approval)
        policy = data["policy"].encode()
        key.verify(bytes.fromhex(data["signature"]), policy)
        facts = json.loads(policy)
    except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature) as error:
        raise PolicyTampered(
            "The approval of the safety policy is damaged or signed by another key. Restore it "
            "from a backup, or have the operator approve the policy again."
        ) from error
    if not isinstance(facts, dict):
        raise PolicyTampered("The approval of the safety policy names no policy. Approve again.")
    return facts


def _differences(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    for name in {*old, *new}:
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            yield from (f"{name}.{inner}" for inner in _differences(before, after))
        else:
            yield name


def _texts(facts: Mapping[str, object], name: str) -> set[str]:
    value = facts.get(name, ())
    return {str(item) for item in value} if isinstance(value, list | tuple) else set()


def _limits(facts: Mapping[str, object]) -> dict[str, Thresholds]:
    value = facts.get("limits", {})
    pairs = value if isinstance(value, dict) else {}
    return {
        name: Thresholds(float(pair[0]), float(pair[1]), CHECKS[name].thresholds.higher_is_worse)
        for name, pair in pairs.items()
        if name in CHECKS
    }


def _figures(facts: Mapping[str, object]) -> dict[str, float]:
    value = facts.get("enrolment", {})
    return {k: float(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _file_hash(name: str, path: Path) -> str:
    try:
        status = path.stat()
        return _hash_of(path, status.st_mtime_ns, status.st_size, status.st_ino)
    except OSError as error:
        raise CheckMissing(
            f"The model file of {name!r}, {path.name!r}, cannot be read: {error.strerror}. "
            "Reinstall it."
        ) from error


@lru_cache(maxsize=16)
def _hash_of(path: Path, changed_ns: int, size: int, inode: int) -> str:
    """SHA-256 of a file, hex; read once as long as it looks the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(content)
    beside.replace(path)
