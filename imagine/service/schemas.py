"""The JSON of requests and answers; also what /openapi.json is made from."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from imagine.backends import BackendInfo
from imagine.core import SQUARE, PhotoReport
from imagine.engine.limits import MAX_GUIDANCE, MAX_STEPS
from imagine.engine.limits import SEED_LIMIT as SEED_LIMIT
from imagine.storage.consent import Consent
from imagine.storage.jobs import Job
from imagine.storage.people import IdentityFacts, ImageFacts
from imagine.storage.verified import Standing
from imagine.traits import TRAITS

ID_PATTERN = "^[A-Za-z0-9_-]{1,64}$"
MAX_BEST_OF = 16
OutputFormat = Literal["png", "jpeg", "webp"]
Tick = Literal["generate", "keep_photos", "review", "improve"]  # as `consent.TICKS`
Thing = TypeVar("Thing")

MAX_RECORD = 2**53
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=SEED_LIMIT - 1)]
AspectRatio = Annotated[
    str,
    Field(
        pattern="^[1-9][0-9]?:[1-9][0-9]?$",
        description="Width to height of the pictures, one of the `sizes` in /v1/models.",
        examples=["3:4"],
    ),
]


class Strict(BaseModel):
    """A request: members we do not know are refused, so that a typing error is not ignored."""

    # Strict: true is not the number one, and "7" is not 7.
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class GenerationRequest(Strict):
    """Pictures of one person."""

    prompt: str = Field(description="What the pictures show.", min_length=1, max_length=10_000)
    identity: str = Field(description="Id of the person.", pattern=ID_PATTERN)
    n: int = Field(default=1, ge=1, le=64, description="How many pictures.")
    seed: Seed | None = Field(default=None, description="Picture i is drawn from seed + i.")
    likeness: float = Field(
        default=0.7, ge=0, le=1, description="0: only the prompt; 1: as alike as possible."
    )
    num_inference_steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    guidance_scale: float | None = Field(default=None, ge=1, le=MAX_GUIDANCE)
    best_of: int = Field(
        default=1,
        ge=1,
        le=MAX_BEST_OF,
        description="Candidates per picture; the best is kept.",
    )
    aspect_ratio: AspectRatio = SQUARE
    style: str | None = Field(default=None, max_length=64, description="An id of /v1/styles.")
    output_format: OutputFormat = "png"
    guidance_interval: list[Share] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="From and up to which share of the steps guidance works.",
    )
    record: int = Field(
        default=0, ge=0, le=MAX_RECORD, description="Of the picture that is made again."
    )
    keep: list[str] = Field(
        default=[], max_length=len(TRAITS), description="Traits as on the selfies, e.g. glasses."
    )
    change: dict[str, str] = Field(
        default={},
        max_length=len(TRAITS),
        description="Traits as they are wished for: {'glasses': 'none'}.",
    )
    beside: str | None = Field(
        default=None,
        pattern=ID_PATTERN,
        description="Id of a second person, to the right; they must have consented as well.",
    )
    timeout_seconds: float | None = Field(
        default=None, gt=0, le=86_400, description="If it has not begun by then, it fails."
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompt": "smiling, in a forest at dawn",
                    "identity": "identity_0123456789abcdef0123456789abcdef",
                    "n": 4,
                    "seed": 7,
                    "likeness": 0.8,
                    "aspect_ratio": "3:4",
                }
            ]
        },
    )


class WithdrawRequest(Strict):
    """Consent taken back; no reason is asked."""

    purposes: list[Tick] | None = Field(
        default=None, max_length=8, description="Which ticks; all of them if not given."
    )


class ConsentRequest(Strict):
    """A consent: exactly what was shown and what was ticked."""

    text: str = Field(min_length=1, max_length=50_000, description="The text that was shown.")
    purposes: list[Tick] = Field(min_length=1, max_length=8, examples=[["generate"]])
    declared_adult: bool
    declared_self: bool
    locale: str = Field(default="en", max_length=35)
    method: str = Field(default="api", max_length=64)
    days: int = Field(default=365, ge=1, le=1095)
    token: str | None = Field(
        default=None, max_length=200, description="Of the form that was shown; see consent_tokens."
    )


class ConsentTokenRequest(Strict):
    """A form of consent that is about to be shown."""

    text: str = Field(min_length=1, max_length=50_000, description="The text that will be shown.")


class ConsentTokenOut(BaseModel):
    """Send `token` along with the consent; it is told here and never again."""

    object: Literal["consent_token"] = "consent_token"
    token: str = Field(repr=False)
    text_sha256: str
    expires_at: datetime


class PersonOut(BaseModel):
    """Somebody known here, and every version of their identity, newest first."""

    object: Literal["person"] = "person"
    id: str
    identity: str = Field(description="The newest one.")
    identities: list[str]
    created_at: datetime


class PhotoReportOut(BaseModel):
    """What we think of one photo."""

    name: str
    verdict: str
    sentences: list[str]
    codes: list[str]
    measures: dict[str, float]
    face_count: int

    @classmethod
    def of(cls, report: PhotoReport) -> PhotoReportOut:
        """As it is told."""
        return cls(
            name=report.name,
            verdict=report.verdict.value,
            sentences=list(report.sentences),
            codes=list(report.codes),
            measures=dict(report.measures),
            face_count=report.face_count,
        )


class IdentityOut(BaseModel):
    """A person, enrolled. Nothing of the face itself is ever told."""

    object: Literal["identity"] = "identity"
    id: str
    person_id: str
    version: int
    name: str
    state: str
    encoder: str | None
    model: str | None
    licence: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime | None
    verification: Literal["verified", "unverified"] = "unverified"
    waits_for_review: bool = False
    photos: list[PhotoReportOut] | None = None

    @classmethod
    def of(
        cls,
        facts: IdentityFacts,
        name: str,
        standing: Standing,
        reports: tuple[PhotoReport, ...] | None = None,
    ) -> IdentityOut:
        """As it is told."""
        return cls(
            id=facts.id,
            person_id=facts.person_id,
            version=facts.version,
            name=name,
            state=facts.state.value,
            encoder=facts.encoder,
            model=facts.model,
            licence=facts.licence,
            created_at=facts.created_at,
            last_used_at=facts.last_used_at,
            expires_at=facts.expires_at,
            verification="verified" if standing.is_verified else "unverified",
            waits_for_review=standing.waits_for_review,
            photos=None if reports is None else [PhotoReportOut.of(report) for report in reports],
        )


class ConsentOut(BaseModel):
    """A consent on record."""

    object: Literal["consent"] = "consent"
    id: str
    identity: str
    text_sha256: str
    locale: str
    purposes: list[str]
    declared_adult: bool
    declared_self: bool
    method: str
    given_at: datetime
    expires_at: datetime
    withdrawn_at: datetime | None

    @classmethod
    def of(cls, consent: Consent) -> ConsentOut:
        """As it is told; the text itself is in the export."""
        return cls(
            id=consent.id,
            identity=consent.identity_id,
            text_sha256=consent.text_sha256,
            locale=consent.locale,
            purposes=sorted(consent.purposes),
            declared_adult=consent.declared_adult,
            declared_self=consent.declared_self,
            method=consent.method,
            given_at=consent.given_at,
            expires_at=consent.expires_at,
            withdrawn_at=consent.withdrawn_at,
        )


class Withdrawn(BaseModel):
    """What a withdrawal did."""

    object: Literal["withdrawal"] = "withdrawal"
    identity: str
    state: str
    generations_canceled: int


class Imported(BaseModel):
    """A person who came in from an export, and their identities, oldest first."""

    object: Literal["import"] = "import"
    person_id: str
    identities: list[IdentityOut]


class Erased(BaseModel):
    """The receipt of an erasure: a certificate signed by the service."""

    object: Literal["erasure"] = "erasure"
    id: str
    certificate: dict[str, Any]
    person_certificate: dict[str, Any] | None = None


class LikenessOut(BaseModel):
    """How much a picture looks like its person."""

    face_found: bool
    distance: float | None
    score: float
    copy_score: float | None
    words: str


class PairOut(BaseModel):
    """How much a picture of two people looks like each, and whether they were mixed."""

    left: LikenessOut
    right: LikenessOut
    blending: float | None


class ImageUrls(BaseModel):
    """Where the parts of a picture are."""

    self: str
    content: str
    recipe: str
    provenance: str


class ImageOut(BaseModel):
    """A finished picture; `seed` to `why` are known while its generation is kept."""

    object: Literal["image"] = "image"
    id: str
    identity: str | None
    generation: str | None
    media_type: str
    bytes: int
    width: int
    height: int
    created_at: datetime
    seed: int | None = None
    likeness: LikenessOut | None = None
    prompt_fit: float | None = None
    why: str | None = None
    pair: PairOut | None = Field(default=None, description="Of a picture of two people.")
    notes: list[str] = []
    urls: ImageUrls

    @classmethod
    def of(cls, facts: ImageFacts, judged: dict[str, Any] | None = None) -> ImageOut:
        """As it is told; `judged` is what the result of the job says of this picture."""
        told = judged or {}
        place = f"/v1/images/{facts.id}"
        return cls(
            id=facts.id,
            identity=facts.identity_id,
            generation=facts.job_id,
            media_type=facts.media_type,
            bytes=facts.byte_count,
            width=facts.width,
            height=facts.height,
            created_at=facts.created_at,
            seed=told.get("seed"),
            likeness=told.get("likeness"),
            prompt_fit=told.get("prompt_fit"),
            why=told.get("why"),
            pair=told.get("pair"),
            notes=told.get("notes", []),
            urls=ImageUrls(
                self=place,
                content=f"{place}/content",
                recipe=f"{place}/recipe",
                provenance=f"{place}/provenance",
            ),
        )


class RecipeOut(BaseModel):
    """All that is needed to make the same picture again, given the same selfies."""

    prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    likeness: float
    backend: str
    model_revision: str
    identity_fingerprint: str
    version: str
    licence: str = ""
    guidance_from: float = 0.0
    guidance_until: float = 1.0
    record: int = 0
    traits: str = ""
    beside_fingerprint: str = ""
    aspect_ratio: str = SQUARE


class ProvenanceOut(BaseModel):
    """How the stored file says where it came from."""

    object: Literal["provenance"] = "provenance"
    image: str
    sha256: str
    digital_source_type: str | None
    carries_recipe: bool
    model_revision: str | None


class GenerationError(BaseModel):
    """Why a generation failed or was blocked."""

    code: str
    message: str


class GenerationUrls(BaseModel):
    """Where a generation can be watched and stopped."""

    self: str
    events: str
    cancel: str


class GenerationOut(BaseModel):
    """A wish and what became of it."""

    object: Literal["generation"] = "generation"
    id: str
    status: str
    blocked_stage: str | None
    identity: str | None
    seed: int | None
    step: int
    num_steps: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    images: list[ImageOut]
    withheld: list[str] = Field(description="Why drawn pictures are missing that may not leave.")
    error: GenerationError | None
    urls: GenerationUrls

    @classmethod
    def of(cls, job: Job, images: list[ImageFacts], seed: int | None = None) -> GenerationOut:
        """As it is told."""
        result = job.result or {}
        judged = {picture["id"]: picture for picture in result.get("images", [])}
        by_id = {facts.id: facts for facts in images}
        place = f"/v1/generations/{job.id}"
        error = job.error
        return cls(
            id=job.id,
            status=job.state.value,
            blocked_stage=job.stage,
            identity=job.identity_id,
            seed=result.get("seed", seed),
            step=result.get("num_steps", job.step),
            num_steps=result.get("num_steps", job.num_steps),
            created_at=job.created_at,
            started_at=job.started_at,
            ended_at=job.ended_at,
            images=[
                ImageOut.of(by_id[image_id], told)
                for image_id, told in judged.items()
                if image_id in by_id  # it may have been deleted since
            ],
            withheld=result.get("withheld", []),
            error=None
            if error is None
            else GenerationError(code=error.code, message=error.message),
            urls=GenerationUrls(self=place, events=f"{place}/events", cancel=f"{place}/cancel"),
        )


class SizeOut(BaseModel):
    """A shape of picture that a model draws, and its true pixels."""

    aspect_ratio: str | None = Field(
        description="What to ask for; null for the one shape of pictures of two people."
    )
    width: int
    height: int


class ModelOut(BaseModel):
    """An image model of this service; `width` and `height` are those of its square pictures."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "imagine-yourself"
    revision: str
    licence: str
    width: int
    height: int
    sizes: list[SizeOut] = Field(description="All shapes it draws, the square first.")
    pair_size: SizeOut | None = Field(description="Of pictures of two people, if it draws any.")
    default_steps: int
    default_guidance_scale: float
    device: str

    @classmethod
    def of(cls, info: BackendInfo) -> ModelOut:
        """As it is told."""
        height, width = info.image_size
        sizes = [
            SizeOut(aspect_ratio=aspect_ratio, width=size[1], height=size[0])
            for aspect_ratio, size in info.sizes.items()
        ]
        pair = info.pair_size
        return cls(
            id=info.name,
            revision=info.model_revision,
            licence=info.licence,
            width=width,
            height=height,
            sizes=sizes,
            pair_size=pair and SizeOut(aspect_ratio=None, width=pair[1], height=pair[0]),
            default_steps=info.default_steps,
            default_guidance_scale=info.default_guidance_scale,
            device=info.device,
        )


class StyleOut(BaseModel):
    """A look that can be asked for by name."""

    object: Literal["style"] = "style"
    id: str
    name: str
    words: str


class Page(BaseModel, Generic[Thing]):
    """A page of a list; go on with `?before=<last_id>` while `has_more`."""

    object: Literal["list"] = "list"
    data: list[Thing]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ProblemOut(BaseModel):
    """RFC 9457 with the error member of OpenAI."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    error: dict[str, str | None]

    model_config = ConfigDict(extra="allow")


class Health(BaseModel):
    """Whether the service lives, and what is not ready."""

    status: str
    waiting_for: list[str] = []
