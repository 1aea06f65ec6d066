"""From photo to picture, the whole story on one page.

Read `photos_to_pictures` and `make_pictures` from top to bottom and you know what the product
does. Opening weights and checking arguments is left to `imagine.api`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Protocol, runtime_checkable

from imagine.backends.base import Backend, refuse_two
from imagine.backends.selfie_traits import Reading, read_shipped
from imagine.core import (
    REDRAW_STRIDE,
    SQUARE,
    Identity,
    ImageArray,
    LikenessVerdict,
    PairVerdict,
    Recipe,
    Request,
)
from imagine.engine import Engine, Phase, Priority, Status, watch
from imagine.errors import Cancelled, PictureWithheld
from imagine.identity import FaceDetector, FaceEncoder, PhotoSource, build_identity
from imagine.identity.align import face_of_crop
from imagine.identity.fuse import fingerprint
from imagine.identity.likeness import COPY, judge_likeness, judge_pair
from imagine.provenance import MarkedImage, mark_image
from imagine.safety import CheckReport, Outcome, OutputChecks, allow_prompt
from imagine.safety.output_checks import shipped_networks
from imagine.settings import VERSION, Settings
from imagine.traits import check_traits, with_traits, write_traits


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asks for, checked and complete.

    Attributes:
        prompt: as typed; policy sees it in `make_pictures`.
        seed: of the first picture; picture i uses seed + i.
        count: how many pictures.
        num_inference_steps: denoising steps of each.
        guidance_scale: classifier-free guidance on the text.
        likeness: 0 (only the prompt speaks) to 1 (as alike as possible).
        best_of: candidates drawn for each picture, of which the best is kept.
        guidance_interval: the share of the schedule, from and up to, in which guidance works.
        record: audit entry of a picture that is made again; 0 for a new one.
        redraws: how often a picture in which no face can be found is drawn again; redraw r of
            picture i uses seed + i + r * REDRAW_STRIDE.
        keep: traits that shall be as on the selfies, names of `imagine.traits.TRAITS`.
        change: trait -> the value it shall have; of two people, of the first.
        aspect_ratio: width to height of the pictures, one of those the backend offers.
    """

    prompt: str = field(repr=False)
    seed: int
    count: int
    num_inference_steps: int
    guidance_scale: float
    likeness: float
    best_of: int = 1
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    record: int = 0
    redraws: int = 0
    keep: Sequence[str] = ()
    change: Mapping[str, str] = field(default_factory=dict, repr=False)
    aspect_ratio: str = SQUARE


@dataclass(frozen=True, slots=True)
class Tools:
    """The loaded models the story is told with.

    Attributes:
        engine: the image model inside its batching loop, shared with whoever else is asking.
        checks: what looks at a picture before it leaves.
        tenant: on whose account.
        priority: how urgent.
        licence: what the weights may be used for, in words, for the recipe.
        mark: gives a finished picture its marks; the plain one writes recipe and origin only.
        read_selfies: what crops of a person say of the traits to keep.
    """

    engine: Engine
    detector: FaceDetector
    encoder: FaceEncoder
    settings: Settings
    checks: OutputChecks
    tenant: str = "local"
    priority: Priority = Priority.INTERACTIVE
    licence: str = ""
    mark: Callable[[ImageArray, Recipe], MarkedImage] = mark_image
    read_selfies: Callable[[ImageArray, Sequence[str]], Sequence[Reading]] = field(
        default_factory=lambda: _read_selfies
    )

    @property
    def backend(self) -> Backend:
        """The image model, for what needs no turn in the loop."""
        return self.engine.backend


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a wish has come.

    Attributes:
        step: denoising steps done, over all candidates of all pictures.
        num_steps: denoising steps in all.
        elapsed_seconds: since the first step began.
        eta_seconds: until the last step ends, at the speed so far.
    """

    step: int
    num_steps: int
    elapsed_seconds: float
    eta_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A drawn picture that nobody outside has seen.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        request: what drew it.
        verdict: how much it looks like the person; of two people, the one on the left.
        prompt_fit: how well it shows the prompt, 0 to 1; None when the backend cannot say.
        pair: how much it looks like each of two people; None of one.
    """

    image: ImageArray = field(repr=False)
    request: Request
    verdict: LikenessVerdict
    prompt_fit: float | None
    pair: PairVerdict | None = None

    @property
    def verdicts(self) -> tuple[LikenessVerdict, ...]:
        """One a person, left to right."""
        return (self.pair.left, self.pair.right) if self.pair else (self.verdict,)

    @property
    def shows_everybody(self) -> bool:
        """Whether everybody's face was found."""
        return all(verdict.face_found for verdict in self.verdicts)

    @property
    def likeness(self) -> float:
        """The score of whom it looks like least."""
        return min(verdict.score for verdict in self.verdicts)


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished, judged and marked picture.

    Attributes:
        marked: the only form in which its bytes leave.
        recipe: how to make it again.
        verdict: how much it looks like the person; of two people, the one on the left.
        prompt_fit: how well it shows the prompt, 0 to 1; None when the backend cannot say.
        why: why this candidate was kept, in words.
        checks: what the output checks said; all of it lets the picture leave.
        pair: how much it looks like each of two people; None of one.
        notes: what was read from the selfies for traits to keep, in words.
    """

    marked: MarkedImage
    recipe: Recipe
    verdict: LikenessVerdict
    prompt_fit: float | None
    why: str
    checks: CheckReport
    pair: PairVerdict | None = None
    notes: tuple[str, ...] = ()


@runtime_checkable
class PromptJudge(Protocol):
    """A backend may also say how well a picture shows its prompt."""

    def prompt_fit(self, image: ImageArray, prompt: str) -> float | None:
        """0 (nothing of it) to 1 (all of it); None when this prompt cannot be judged."""


ReportProgress = Callable[[Progress], object]
IsCancelled = Callable[[], bool]
ReportWithheld = Callable[[Candidate, CheckReport], object]
ReportStatus = Callable[[int, Status], object]


@dataclass(frozen=True, slots=True)
class Audience:
    """Who hears what happens while pictures are made.

    Attributes:
        progress: how far all of it is, after every denoising step.
        is_cancelled: asked before every step.
        withheld: a drawn picture that may not leave, and why.
        status: where one candidate stands, previews included; candidate k of picture i has the
            number i + k * count.
    """

    progress: ReportProgress = lambda progress: None
    is_cancelled: IsCancelled = lambda: False
    withheld: ReportWithheld = lambda candidate, report: None
    status: ReportStatus = lambda number, status: None


NOBODY = Audience()


def photos_to_pictures(
    selfies: Sequence[PhotoSource], wish: Wish, tools: Tools, audience: Audience = NOBODY
) -> list[Picture]:
    """Selfies of one person and a wish in, marked pictures of that person out."""
    # Detect, align and embed the face of each selfie, check they are one person, fuse them.
    identity = build_identity(selfies, tools.detector, tools.encoder, tools.settings)
    return make_pictures(wish, identity, tools, audience)


def make_pictures(
    wish: Wish,
    identity: Identity,
    tools: Tools,
    audience: Audience = NOBODY,
    beside: Identity | None = None,
) -> list[Picture]:
    """A person and a wish in, marked pictures out, one per wished picture and in order.

    A picture that may not leave is left out and told to `audience.withheld`. With somebody
    `beside`, both are in every picture: the first on the left, the other on the right. That both
    agreed to it is for the caller to know.

    Raises:
        PromptBlocked: policy does not allow the prompt; nothing was drawn.
        PictureWithheld: not one picture may leave.
        CheckMissing: an output check cannot run, so nothing may leave.
        Cancelled: `audience.is_cancelled` became true; nothing was kept.
        InvalidInput: a trait there is not, two people where the backend draws one, or a shape it
            does not draw.
    """
    prompt = allow_prompt(wish.prompt, tools.settings)
    if beside is not None:
        refuse_two(tools.backend.info)
    tools.backend.info.size_of(wish.aspect_ratio, two=beside is not None)
    traits, notes = wished_traits(wish, prompt, identity, tools)
    wanted = Wanted(prompt, traits, identity, beside)
    check = checker(tools, identity, beside)
    candidates = draw_candidates(wish, wanted, tools, check, audience)
    kept: list[Picture] = []
    refused: list[CheckReport] = []
    for choice in candidates:
        best = keep_best(choice, identity, tools, check, wish.record)
        if isinstance(best, Picture):
            kept.append(replace(best, notes=notes))
        else:
            refused.append(best[1])
            audience.withheld(*best)
    if not kept:
        raise PictureWithheld(f"Nothing was handed out: {refused[0].words} Ask for another seed.")
    return kept


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be seen: an allowed prompt, switched traits with their values, and who."""

    prompt: str = field(repr=False)
    traits: Mapping[str, str] = field(repr=False)
    identity: Identity
    beside: Identity | None = None


def wished_traits(
    wish: Wish, prompt: str, identity: Identity, tools: Tools
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The traits to ask for, with their values, and what was read from the selfies, in words.

    Raises:
        InvalidInput: an unknown trait or value, or one to keep and to change.
        PromptBlocked: policy does not allow the prompt with these traits.
        MissingWeights: traits are to be kept and the attribute judge is not installed.
        CheckMissing: the age is to be kept and the age network is not installed.
    """
    traits = check_traits(wish.keep, wish.change)
    readings = tools.read_selfies(identity.crops, wish.keep) if wish.keep else ()
    traits |= {reading.trait: reading.value for reading in readings if reading.value}
    if traits:
        allow_prompt(with_traits(prompt, traits), tools.settings)
    return check_traits((), traits), tuple(reading.words for reading in readings)


def checker(
    tools: Tools, identity: Identity, beside: Identity | None = None
) -> Callable[[Candidate], CheckReport]:
    """What the output checks say of a candidate of these people; each is looked at once."""
    people = [person.embedding for person in (identity, beside) if person is not None]

    @cache
    def check(candidate: Candidate) -> CheckReport:
        return tools.checks.check(candidate.image, people)

    return check


def draw_candidates(
    wish: Wish,
    wanted: Wanted,
    tools: Tools,
    check: Callable[[Candidate], CheckReport],
    audience: Audience,
) -> list[list[Candidate]]:
    """The candidates of each picture, drawn and judged.

    Where no candidate of a picture both has a face and may leave, another one is drawn, up to
    `wish.redraws` times: a picture of somebody without a face is of no use to them.
    """
    choices: list[list[Candidate]] = [[] for _ in range(wish.count)]
    numbers = list(range(wish.count * wish.best_of))
    steps_done, started = 0, time.monotonic()
    for _ in range(1 + wish.redraws):
        requests = [candidate_request(wish, wanted, number) for number in numbers]
        images = draw(requests, numbers, tools, audience, steps_done, started)
        steps_done += len(requests) * wish.num_inference_steps
        for number, request, image in zip(numbers, requests, images, strict=True):
            choices[number % wish.count].append(judged(image, request, wanted, tools))
        numbers = [
            index + len(choice) * wish.count
            for index, choice in enumerate(choices)
            if not any(one.shows_everybody and may_leave(check(one)) for one in choice)
        ]
        if not numbers:
            break
    return choices


def candidate_request(wish: Wish, wanted: Wanted, number: int) -> Request:
    """The request of one candidate; candidate k of picture i is number i + k * count.

    The first `count` requests are those of a wish without `best_of`: asking for more candidates
    never makes the pictures you would have had without unreachable.
    """
    redraw = max(0, number // wish.count - wish.best_of + 1)
    plain = number % wish.count if redraw else number
    return Request(
        prompt=wanted.prompt,
        crops=wanted.identity.crops,
        seed=(wish.seed + plain + redraw * REDRAW_STRIDE) % 2**63,
        num_inference_steps=wish.num_inference_steps,
        guidance_scale=wish.guidance_scale,
        likeness=wish.likeness,
        guidance_interval=wish.guidance_interval,
        traits=wanted.traits,
        beside=wanted.beside.crops if wanted.beside else None,
        aspect_ratio=wish.aspect_ratio,
    )


def judged(image: ImageArray, request: Request, wanted: Wanted, tools: Tools) -> Candidate:
    """A drawn picture with what is to be said of it."""
    said = with_traits(wanted.prompt, wanted.traits)
    if wanted.beside is None:
        verdict = judge_likeness(image, wanted.identity, tools.detector, tools.encoder)
        return Candidate(image, request, verdict, fit_to_prompt(tools.backend, image, said))
    people = (wanted.identity, wanted.beside)
    pair = judge_pair(image, people, tools.detector, tools.encoder)
    side = image.shape[0]  # the square in which each of them stands
    left = fit_to_prompt(tools.backend, image[:, :side], said)
    right = fit_to_prompt(tools.backend, image[:, -side:], wanted.prompt)
    fit = None if left is None or right is None else (left + right) / 2
    return Candidate(image, request, pair.left, fit, pair)


def draw(
    requests: Sequence[Request],
    numbers: Sequence[int],
    tools: Tools,
    audience: Audience,
    steps_done: int = 0,
    started: float | None = None,
) -> list[ImageArray]:
    """Hand the requests to the engine, tell how far they are, wait for the pictures.

    Whatever ends this early (an error of one, a cancellation, an interrupt) stops the rest.

    Args:
        requests: one per picture.
        numbers: what each is called before the audience.
        tools: whose engine draws.
        audience: who hears of it.
        steps_done: before these requests, for the progress.
        started: when the first of those steps began, by `time.monotonic`; None for now.
    """
    stopped = Cancelled("Cancelled before the pictures were finished; nothing was kept.")
    if audience.is_cancelled():
        raise stopped
    tickets = tools.engine.submit_all(requests, tenant=tools.tenant, priority=tools.priority)
    steps = [0] * len(tickets)
    num_steps = sum(request.num_inference_steps for request in requests)
    started = time.monotonic() if started is None else started
    try:
        for index, status in watch(tickets):
            if status.phase in (Phase.FAILED, Phase.CANCELED):
                tickets[index].result()  # raises what happened
            audience.status(numbers[index], status)
            if status.step > steps[index]:
                steps[index] = status.step
                elapsed = time.monotonic() - started
                audience.progress(_progress(sum(steps), num_steps, elapsed, steps_done))
            if sum(steps) < num_steps and audience.is_cancelled():
                raise stopped
        return [ticket.result() for ticket in tickets]
    finally:
        for ticket in tickets:
            ticket.cancel()


def fit_to_prompt(backend: Backend, image: ImageArray, prompt: str) -> float | None:
    """How well the picture shows the prompt, if the backend can judge that."""
    return backend.prompt_fit(image, prompt) if isinstance(backend, PromptJudge) else None


def keep_best(
    candidates: Sequence[Candidate],
    identity: Identity,
    tools: Tools,
    check: Callable[[Candidate], CheckReport],
    record: int = 0,
) -> Picture | tuple[Candidate, CheckReport]:
    """The best candidate that may leave, marked, or the best of them and why it may not.

    Best is most likeness and prompt fit; copies of a selfie lose to every other face, and what
    has no face to everything else. Prompt fit counts only when every candidate has one, then as
    much as likeness.
    """
    ranked = sorted(candidates, key=_merit(candidates), reverse=True)
    refused = []
    for candidate in ranked:
        report = check(candidate)
        if may_leave(report):
            why = _why(candidate, candidates)
            return _mark(candidate, why, report, identity, tools, record)
        refused.append((candidate, report))
    return refused[0]


def may_leave(report: CheckReport) -> bool:
    """Whether a picture leaves without a reviewer.

    A face far from the person's holds nothing back: whoever asked sees that at once, and the
    likeness verdict under the picture says so.
    """
    return all(
        verdict.outcome is Outcome.PASS
        or (verdict.outcome is Outcome.REVIEW and verdict.check == "person_match")
        for verdict in report.verdicts
    )


def _merit(candidates: Sequence[Candidate]) -> Callable[[Candidate], tuple[int, bool, float]]:
    all_fit = all(candidate.prompt_fit is not None for candidate in candidates)

    def merit(candidate: Candidate) -> tuple[int, bool, float]:
        copied = any((verdict.copy_score or 0.0) >= COPY for verdict in candidate.verdicts)
        fit = candidate.prompt_fit if all_fit and candidate.prompt_fit is not None else 0.0
        faces = sum(verdict.face_found for verdict in candidate.verdicts)
        return faces, not copied, candidate.likeness + fit

    return merit


def _why(kept: Candidate, candidates: Sequence[Candidate]) -> str:
    if len(candidates) == 1:
        return "The only candidate drawn."
    others = [candidate for candidate in candidates if candidate is not kept]
    likeness = f"likeness {kept.likeness:.2f} ({_span(c.likeness for c in others)})"
    chosen = f"Best of {len(candidates)}: {likeness}"
    lost = sum(not candidate.shows_everybody for candidate in others)
    if lost and kept.shows_everybody:
        chosen += f", {lost} without a face"
    fits = [c.prompt_fit for c in candidates if c.prompt_fit is not None]
    if kept.prompt_fit is None or len(fits) < len(candidates):
        return f"{chosen}; ranked by likeness alone, since this backend cannot judge prompt fit."
    return (
        f"{chosen}, prompt fit {kept.prompt_fit:.2f} ({_span(c.prompt_fit or 0 for c in others)})."
    )


def _span(values: Iterator[float]) -> str:
    low, *_, high = sorted([*(listed := list(values)), *listed])
    return f"others {low:.2f}" if low == high else f"others {low:.2f} to {high:.2f}"


def _mark(
    candidate: Candidate,
    why: str,
    report: CheckReport,
    identity: Identity,
    tools: Tools,
    record: int,
) -> Picture:
    recipe = recipe_of(candidate, identity, tools, record)
    marked = tools.mark(candidate.image, recipe)
    return Picture(
        marked,
        marked.recipe or recipe,
        candidate.verdict,
        candidate.prompt_fit,
        why,
        report,
        candidate.pair,
    )


def recipe_of(candidate: Candidate, identity: Identity, tools: Tools, record: int = 0) -> Recipe:
    """How to make a candidate again; also of one that may not leave, for whoever reviews it."""
    request = candidate.request
    return Recipe(
        prompt=request.prompt,
        seed=request.seed,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        likeness=request.likeness,
        backend=tools.backend.info.name,
        model_revision=tools.backend.info.model_revision,
        identity_fingerprint=identity.fingerprint,
        version=VERSION,
        licence=tools.licence,
        guidance_from=request.guidance_interval[0],
        guidance_until=request.guidance_interval[1],
        record=record,
        traits=write_traits(request.traits),
        beside_fingerprint="" if request.beside is None else fingerprint(request.beside),
        aspect_ratio=request.aspect_ratio,
    )


def _read_selfies(crops: ImageArray, traits: Sequence[str]) -> Sequence[Reading]:
    """By the shipped attribute judge and the age network."""

    def age(crop: ImageArray) -> float:
        return float(shipped_networks()[1](crop, [face_of_crop(crop)])[0])

    return read_shipped(crops, traits, age)


def _progress(step: int, num_steps: int, elapsed_seconds: float, steps_done: int) -> Progress:
    eta_seconds = elapsed_seconds / (steps_done + step) * (num_steps - step)
    return Progress(steps_done + step, steps_done + num_steps, elapsed_seconds, eta_seconds)
