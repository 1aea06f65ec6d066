"""What may leave: every finished picture is looked at before it is marked.

Each check is a function from a picture and the faces on it to a `Verdict`: pass, review (a person
decides first) or block. A check that cannot run stops everything, unless the operator switched it
off by setting; that is an event, and every report says so. Finding and comparing faces is handed
in at wiring time. What the face detector does not find, the face checks cannot judge: a picture
without a found face passes them, and its report says that no face was found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Protocol, TypeVar

import numpy as np

from imagine.core import Face, FloatArray, ImageArray
from imagine.errors import CheckMissing, InvalidInput
from imagine.safety.apparent_age import INSTALL as INSTALL_AGE
from imagine.safety.apparent_age import AgeEstimator
from imagine.safety.nudity import INSTALL as INSTALL_NUDITY
from imagine.safety.nudity import NudityModel

Tool = TypeVar("Tool")
# Kind and facts of something an auditor should know; facts hold no picture, face or prompt.
RecordEvent = Callable[[str, Mapping[str, object]], None]


class Outcome(StrEnum):
    """What happens to a picture, from best to worst."""

    PASS = "pass"
    REVIEW = "review"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which score a picture is held or blocked.

    Attributes:
        review: held from here on; `math.inf` or `-math.inf` is never.
        block: blocked from here on.
        higher_is_worse: whether "from here on" means upwards.
    """

    review: float
    block: float
    higher_is_worse: bool = True

    def outcome(self, score: float) -> Outcome:
        """Judge a score; one that is not a number is blocked."""
        if math.isnan(score):
            return Outcome.BLOCK
        sign = 1.0 if self.higher_is_worse else -1.0
        if sign * score >= sign * self.block:
            return Outcome.BLOCK
        return Outcome.REVIEW if sign * score >= sign * self.review else Outcome.PASS

    def is_weaker_than(self, other: Thresholds) -> bool:
        """Whether a picture could pass here that `other` holds, or be held that it blocks."""
        sign = 1.0 if self.higher_is_worse else -1.0
        return sign * self.review > sign * other.review or sign * self.block > sign * other.block


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check says of a picture.

    Attributes:
        check: name of the check.
        outcome: pass, review or block.
        score: the figure it is based on; None when there was nothing to measure or it is off.
        thresholds: the limits it was held against.
        words: the verdict as a sentence, fit for the person who asked.
        switched_off: the operator switched this check off; nothing was looked at.
    """

    check: str
    outcome: Outcome
    score: float | None
    thresholds: Thresholds
    words: str
    switched_off: bool = False


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What all checks say of a picture, in the order they were asked."""

    verdicts: tuple[Verdict, ...]

    @property
    def outcome(self) -> Outcome:
        """The worst of all verdicts."""
        order = list(Outcome)
        return max((verdict.outcome for verdict in self.verdicts), key=order.index)

    @property
    def switched_off(self) -> tuple[str, ...]:
        """Names of the checks the operator switched off."""
        return tuple(verdict.check for verdict in self.verdicts if verdict.switched_off)

    @property
    def words(self) -> str:
        """The worst verdict in words."""
        worst = self.outcome
        return next(verdict.words for verdict in self.verdicts if verdict.outcome is worst)

    def facts(self) -> dict[str, object]:
        """Names, outcomes and scores as JSON can hold them, for manifests and logs."""
        return {
            "outcome": str(self.outcome),
            "checks": {
                verdict.check: {
                    "outcome": str(verdict.outcome),
                    "score": _finite(verdict.score),
                }
                for verdict in self.verdicts
                if not verdict.switched_off
            },
            "switched_off": list(self.switched_off),
        }


@dataclass(frozen=True, slots=True)
class SeenFace:
    """A face on a picture and its vector, (d,) float32 of the handed-in recogniser."""

    face: Face = field(repr=False)
    embedding: FloatArray = field(repr=False)


@dataclass(frozen=True, slots=True)
class OutputTools:
    """Skills of other rooms and models, handed in at wiring time; None is "not there".

    Attributes:
        score_nudity: picture -> 0 to 1; `NudityModel()`.
        see_faces: picture -> its faces, described.
        distance: between two embeddings, at least 0.
        same_person_distance: embeddings at most this far apart are one person.
        estimate_ages: picture, faces -> years each face seems to have; `AgeEstimator()`.
        listed_distance: embedding -> distance to the nearest entry of the do-not-generate list,
            `math.inf` when the list is empty; `DoNotGenerateList.nearest`.
    """

    score_nudity: Callable[[ImageArray], float] | None
    see_faces: Callable[[ImageArray], Sequence[SeenFace]] | None
    distance: Callable[[FloatArray, FloatArray], float] | None
    same_person_distance: float
    estimate_ages: Callable[[ImageArray, Sequence[Face]], Sequence[float]] | None
    listed_distance: Callable[[FloatArray], float] | None


class Scene:
    """A picture being checked: faces are looked for once, when the first check asks.

    Attributes:
        image: (height, width, 3) uint8 RGB.
        people: embeddings of the enrolled people, (d,) float32 each; none for nobody in particular.
        expected_faces: how many faces should be there.
    """

    def __init__(
        self,
        image: ImageArray,
        people: Sequence[FloatArray],
        tools: OutputTools,
        expected_faces: int = 1,
    ) -> None:
        self.image = image
        self.people = tuple(people)
        self.expected_faces = expected_faces
        self.tools = tools

    def __repr__(self) -> str:
        return f"Scene({self.image.shape[1]}x{self.image.shape[0]})"

    @cached_property
    def faces(self) -> tuple[SeenFace, ...]:
        """The faces of the picture."""
        return tuple(_handed(self.tools.see_faces)(self.image))

    def unlikeness(self, seen: SeenFace, person: FloatArray) -> float:
        """Distance to a person, 1 being the recogniser's own limit for one person."""
        distance = _handed(self.tools.distance)(seen.embedding, person)
        return float(distance) / self.tools.same_person_distance

    def matched(self) -> tuple[list[float], list[SeenFace]]:
        """How far each person's face is, likest pairs first, and the faces that are left over."""
        left = list(self.faces)
        waiting = list(self.people)
        distances: list[float] = []
        while left and waiting:
            apart, face, person = min(
                (self.unlikeness(seen, somebody), f, p)
                for f, seen in enumerate(left)
                for p, somebody in enumerate(waiting)
            )
            distances.append(apart)
            del left[face], waiting[person]
        return distances, left


Check = Callable[[Scene, Thresholds], Verdict]


def check_nudity(scene: Scene, thresholds: Thresholds) -> Verdict:
    """Nudity, from 0 to 1, by a classifier."""
    score = float(_handed(scene.tools.score_nudity)(scene.image))
    return _verdict(
        "nudity",
        score,
        thresholds,
        "No nudity was found.",
        "The picture may show nudity, so somebody looks at it first.",
        "The picture seems to show nudity and is not handed out.",
    )


def check_apparent_minors(scene: Scene, thresholds: Thresholds) -> Verdict:
    """Age of the youngest-looking face, in years."""
    faces = [seen.face for seen in scene.faces]
    ages = list(_handed(scene.tools.estimate_ages)(scene.image, faces))
    if len(ages) != len(faces):
        raise CheckMissing(
            f"The age estimator gave {len(ages)} ages for {len(faces)} faces; the check cannot "
            f"be trusted. Reinstall it: {INSTALL_AGE}"
        )
    if not ages:
        return _nothing_to_see("apparent_minors", thresholds)
    # min() would hide one that is not a number behind its neighbours.
    youngest = math.nan if any(math.isnan(age) for age in ages) else float(min(ages))
    return _verdict(
        "apparent_minors",
        youngest,
        thresholds,
        "Everybody in the picture looks grown up.",
        "Somebody in the picture may look too young, so it is looked at first.",
        "Somebody in the picture looks like a minor; it is not handed out.",
    )


def check_expected_faces(scene: Scene, thresholds: Thresholds) -> Verdict:
    """Faces beyond those expected that are not the person: a stranger holds the picture."""
    if not scene.people:
        strangers = max(0, len(scene.faces) - scene.expected_faces)
    else:
        # The likest face of each is the expected one; a mirror may show a person once more.
        strangers = sum(
            min(scene.unlikeness(seen, person) for person in scene.people) > 1.0
            for seen in scene.matched()[1]
        )
    found = len(scene.faces)
    return _verdict(
        "expected_faces",
        float(strangers),
        thresholds,
        "Only the expected faces are there."
        if found >= scene.expected_faces or found == 0
        else f"Only {found} of {scene.expected_faces} expected faces could be found.",
        "There is a face of somebody else in the picture, so it is looked at first.",
        "There are faces of other people in the picture; it is not handed out.",
    )


def check_person_match(scene: Scene, thresholds: Thresholds) -> Verdict:
    """Distance of the likest face to the person, 1 being the recogniser's own limit.

    Of several people, the one whose face is furthest away counts.
    """
    if not scene.people or not scene.faces:
        return _nothing_to_see("person_match", thresholds)
    return _verdict(
        "person_match",
        max(scene.matched()[0]),
        thresholds,
        "The face is near enough to the person asked for.",
        "The face is far from the person asked for and may be somebody else's; it is looked at "
        "first.",
        "The face is not that of the person asked for; the picture is not handed out.",
    )


def check_do_not_generate(scene: Scene, thresholds: Thresholds) -> Verdict:
    """Distance to the nearest person who asked not to be shown, 1 being one person's limit."""
    nearest = _handed(scene.tools.listed_distance)
    if not scene.faces:
        return _nothing_to_see("do_not_generate", thresholds)
    distances = [nearest(seen.embedding) for seen in scene.faces]
    return _verdict(
        "do_not_generate",
        min(distances) / scene.tools.same_person_distance,
        thresholds,
        "Nobody in the picture asked not to be shown.",
        "A face resembles somebody who asked not to be shown, so the picture is looked at first.",
        "A face is that of somebody who asked not to be shown; the picture is not handed out.",
    )


@dataclass(frozen=True, slots=True)
class CheckEntry:
    """One check, its usual limits, what it needs and how to get that."""

    check: Check
    thresholds: Thresholds
    needs: tuple[str, ...]
    install: str


_FACES = 'a face detector and encoder; "dlib" comes with this package'
# The usual order and limits. Nudity: the demo pictures score at most 0.078, the astronaut 0.032,
# a flat square of skin colour 0.21. Ages: the demo pictures look 21 to 29, so a wider margin would
# hold most of them. Match: the demo pictures lie at 0.87 to 1.03 of the recogniser's limit from
# their person, at 1.13 to 1.33 from others, and the astronaut at 1.20; blurred faces lie near
# everybody, so this tells another photograph better than another blur. List: for the same reason
# only clear matches count.
CHECKS: dict[str, CheckEntry] = {
    "nudity": CheckEntry(check_nudity, Thresholds(0.15, 0.5), ("score_nudity",), INSTALL_NUDITY),
    "apparent_minors": CheckEntry(
        check_apparent_minors,
        Thresholds(18.0, 13.0, higher_is_worse=False),
        ("see_faces", "estimate_ages"),
        INSTALL_AGE,
    ),
    "expected_faces": CheckEntry(
        check_expected_faces, Thresholds(1.0, math.inf), ("see_faces", "distance"), _FACES
    ),
    "person_match": CheckEntry(
        check_person_match, Thresholds(1.15, math.inf), ("see_faces", "distance"), _FACES
    ),
    "do_not_generate": CheckEntry(
        check_do_not_generate,
        Thresholds(0.85, 0.7, higher_is_worse=False),
        ("see_faces", "listed_distance"),
        "a do-not-generate list and its key; imagine.safety.do_not_generate makes an empty one",
    ),
}


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """What the operator chose.

    Attributes:
        order: names of all checks, in the order they are asked.
        off: names of checks that are switched off. Nudity of an enrolled person has no switch:
            naming it here counts only for pictures of nobody in particular.
        thresholds: other limits, by name of the check.
    """

    order: tuple[str, ...] = tuple(CHECKS)
    off: frozenset[str] = frozenset()
    thresholds: Mapping[str, Thresholds] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.order, *self.off, *self.thresholds):
            if name not in CHECKS:
                known = ", ".join(CHECKS)
                raise InvalidInput(f"There is no output check called {name!r}. Known: {known}.")
        if sorted(self.order) != sorted(CHECKS):
            raise InvalidInput(
                f"The order of output checks is {', '.join(self.order) or 'empty'}. Name every "
                f"check once: {', '.join(CHECKS)}. To leave one out, switch it off."
            )
        for name, limits in self.thresholds.items():
            _check_limits(name, limits, CHECKS[name].thresholds)

    def limits(self, name: str) -> Thresholds:
        """The limits of a check."""
        return self.thresholds.get(name, CHECKS[name].thresholds)


class OutputChecks:
    """All checks, ready to be asked of picture after picture.

    Raises:
        CheckMissing: a check that is not switched off lacks what it needs; the message has the
            command that mends it. Known before the first picture is drawn.
    """

    def __init__(
        self, tools: OutputTools, settings: CheckSettings, record_event: RecordEvent
    ) -> None:
        self._tools = tools
        self._settings = settings
        for name in settings.order:
            # Nudity is needed even when off, since that does not count for enrolled people.
            if name == "nudity" or name not in settings.off:
                _require(name, tools)
        for name in sorted(settings.off):
            record_event("checks.turned_off", {"check": name})
        for name, limits in settings.thresholds.items():
            if limits.is_weaker_than(CHECKS[name].thresholds):
                record_event("policy.weakened", _limit_facts(name, limits))

    def check(
        self,
        image: ImageArray,
        person: FloatArray | Sequence[FloatArray] | None,
        expected_faces: int | None = None,
    ) -> CheckReport:
        """Ask every check about a finished picture.

        Args:
            image: (height, width, 3) uint8 RGB.
            person: embedding of the enrolled person, or a list of those of several; None for nobody
                in particular.
            expected_faces: how many faces should be there; None is one a person.

        Raises:
            CheckMissing: a check could not run; the picture must not leave.
        """
        people = _people(person)
        scene = Scene(image, people, self._tools, expected_faces or max(1, len(people)))
        return CheckReport(tuple(self._ask(name, scene) for name in self._settings.order))

    def _ask(self, name: str, scene: Scene) -> Verdict:
        limits = self._settings.limits(name)
        has_no_switch = name == "nudity" and bool(scene.people)
        if name in self._settings.off and not has_no_switch:
            words = f"The check {name!r} is switched off by the operator."
            return Verdict(name, Outcome.PASS, None, limits, words, switched_off=True)
        return CHECKS[name].check(scene, limits)


def _people(person: FloatArray | Sequence[FloatArray] | None) -> tuple[FloatArray, ...]:
    if person is None:
        return ()
    return (person,) if isinstance(person, np.ndarray) else tuple(person)


def _finite(score: float | None) -> float | None:
    """JSON knows neither infinity nor "not a number"."""
    return score if score is not None and math.isfinite(score) else None


def _require(name: str, tools: OutputTools) -> None:
    entry = CHECKS[name]
    for need in entry.needs:
        tool = getattr(tools, need)
        if tool is None:
            raise CheckMissing(
                f"The output check {name!r} cannot run: it was given no {need!r}. "
                f"It needs: {entry.install}." + _or_switch_off(name)
            )
        # Models that load late say now whether they can.
        if (check_ready := getattr(tool, "check_ready", None)) is not None:
            try:
                check_ready()
            except CheckMissing as error:
                raise CheckMissing(f"{error}{_or_switch_off(name)}") from error


def _or_switch_off(name: str) -> str:
    return "" if name == "nudity" else f" Or switch the check {name!r} off, which is recorded."


def _check_limits(name: str, limits: Thresholds, usual: Thresholds) -> None:
    if limits.higher_is_worse != usual.higher_is_worse or any(
        math.isnan(value) for value in (limits.review, limits.block)
    ):
        raise InvalidInput(
            f"The limits of the check {name!r} are {limits.review} and {limits.block} in the "
            f"wrong direction or not numbers. Usual: {usual.review} and {usual.block}."
        )
    if name == "nudity" and limits.is_weaker_than(usual):
        raise InvalidInput(
            f"The limits of the nudity check are {limits.review} and {limits.block}; they may be "
            f"lowered from {usual.review} and {usual.block}, never raised."
        )


def _limit_facts(name: str, limits: Thresholds) -> dict[str, object]:
    usual = CHECKS[name].thresholds
    return {
        "check": name,
        # In words, since JSON has no infinity.
        "review": str(limits.review),
        "block": str(limits.block),
        "usual_review": str(usual.review),
        "usual_block": str(usual.block),
    }


def _verdict(
    check: str, score: float, thresholds: Thresholds, passes: str, reviewed: str, blocked: str
) -> Verdict:
    outcome = thresholds.outcome(score)
    words = {Outcome.PASS: passes, Outcome.REVIEW: reviewed, Outcome.BLOCK: blocked}[outcome]
    return Verdict(check, outcome, score, thresholds, words)


def _nothing_to_see(check: str, thresholds: Thresholds) -> Verdict:
    words = "No face was found, so there is nobody to recognise."
    return Verdict(check, Outcome.PASS, None, thresholds, words)


def _handed(tool: Tool | None) -> Tool:
    if tool is None:
        raise CheckMissing(
            "An output check was asked without the skill it needs. Build it with OutputChecks, "
            "which says what is missing."
        )
    return tool


class _Detector(Protocol):
    def detect(self, image: ImageArray) -> list[Face]: ...


class _Encoder(Protocol):
    @property
    def same_person_distance(self) -> float: ...

    def embed(self, image: ImageArray, face: Face) -> FloatArray: ...

    def distance(self, first: FloatArray, second: FloatArray) -> float: ...


def usual_checks(
    detector: _Detector,
    encoder: _Encoder,
    settings: CheckSettings | None = None,
    listed_distance: Callable[[FloatArray], float] | None = None,
    record_event: RecordEvent = lambda kind, facts: None,
) -> OutputChecks:
    """Every check with the shipped networks.

    Args:
        detector: finds the faces.
        encoder: describes and compares them.
        settings: what the operator chose; None takes the usual limits.
        listed_distance: of the do-not-generate list; None is an empty list.
        record_event: takes what the operator weakened to the audit log.

    Raises:
        CheckMissing: one of them cannot run on this machine.
    """

    def see(image: ImageArray) -> list[SeenFace]:
        return [SeenFace(face, encoder.embed(image, face)) for face in detector.detect(image)]

    nudity, ages = shipped_networks()
    tools = OutputTools(
        score_nudity=nudity,
        see_faces=see,
        distance=encoder.distance,
        same_person_distance=encoder.same_person_distance,
        estimate_ages=ages,
        listed_distance=listed_distance or (lambda embedding: math.inf),
    )
    return OutputChecks(tools, settings or CheckSettings(), record_event)


@lru_cache(maxsize=1)
def shipped_networks() -> tuple[NudityModel, AgeEstimator]:
    """The networks of nudity and age, opened at the first picture and then kept for all."""
    return NudityModel(), AgeEstimator()
