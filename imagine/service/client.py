"""Talking to a service as to `imagine.Imagine`: the same names, from another machine.

    from imagine.service.client import ImagineClient

    with ImagineClient("http://127.0.0.1:8765", api_key) as im:
        with im.identity(["a.jpg"], consent=form) as me:
            im.generate("in a forest", identity=me, seed=7).images[0].save("me.png")

Errors are those of `imagine.errors`, as if the work had been done here.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Unpack

import httpx2

from imagine.api import Cancel, OnProgress
from imagine.backends import BackendInfo
from imagine.core import PhotoReport, Recipe
from imagine.errors import ImagineError, InvalidInput
from imagine.identity import PhotoSource
from imagine.service.webhook_signatures import WebhookEvent, WebhookVerifier
from imagine.service.wire import (
    DEFAULT_URL,
    MAX_RETRIES,
    CameraCheck,
    CheckedByCamera,
    EventReader,
    Preview,
    RemoteImage,
    RemoteResult,
    RemoteWish,
    ServerEvent,
    archive_file,
    camera_check_of,
    cancel_question,
    check_answer,
    check_ended_well,
    checked_of,
    choice_field,
    consent_fields,
    frame_files,
    image_of,
    info_of,
    may_repeat,
    new_key,
    pause_seconds,
    photo_files,
    replay_wish,
    report_of,
    unreachable,
    wish_body,
)
from imagine.storage.consent import ConsentForm

__all__ = [
    "AsyncImagineClient",
    "AsyncRemoteIdentity",
    "CameraCheck",
    "CheckedByCamera",
    "ConsentForm",
    "ImagineClient",
    "Preview",
    "RemoteIdentity",
    "RemoteImage",
    "RemoteResult",
    "RemoteWish",
    "WebhookEvent",
    "WebhookVerifier",
]

OnPreview = Callable[[Preview], object] | None
_LOOK_SECONDS = 0.1  # between two looks whether the caller wants to stop


class RemoteIdentity:
    """A person enrolled at a service; in a `with` block forgotten there at its end.

    Attributes:
        id: names the person in the service.
        name: what the person calls it.
        reports: what the service thinks of each photo; empty for one that was there before.
        facts: all that the service tells of them, as JSON.
    """

    def __init__(self, client: ImagineClient, told: Mapping[str, Any]) -> None:
        self._client = client
        self.facts = dict(told)
        self.id: str = told["id"]
        self.name: str = told["name"]
        self.reports: tuple[PhotoReport, ...] = tuple(map(report_of, told["photos"] or ()))

    def __repr__(self) -> str:
        return f"RemoteIdentity({self.id!r})"

    def forget(self) -> dict[str, Any]:
        """Erase the person and every picture of them; returns the signed certificate."""
        return self._client.forget(self.id)

    def __enter__(self) -> RemoteIdentity:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.forget()


class ImagineClient:
    """A service, spoken to from one or several threads.

    Args:
        base_url: where it is.
        api_key: made by `imagine-me keys create`; None for a single-user service on this machine.
        timeout_seconds: of one answer.
        http: a client of one's own, for proxies, certificates or tests.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        timeout_seconds: float = 60.0,
        http: httpx2.Client | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = http or httpx2.Client(timeout=timeout_seconds)
        self._is_ours = http is None

    def __repr__(self) -> str:
        return f"ImagineClient({self.base_url!r})"

    def __enter__(self) -> ImagineClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._is_ours:
            self._http.close()

    @property
    def info(self) -> BackendInfo:
        """Facts about the image model of the service."""
        return info_of(self._ask("GET", "/v1/models").json()["data"][0])

    def check(
        self, photos: Sequence[PhotoSource], choose: Mapping[int, int] | None = None
    ) -> tuple[PhotoReport, ...]:
        """As `Imagine.check`; the service keeps nothing."""
        answer = self._ask(
            "POST", "/v1/photo_checks", files=photo_files(photos), data=choice_field(choose)
        )
        return tuple(report_of(told) for told in answer.json())

    def identity(
        self,
        photos: Sequence[PhotoSource],
        choose: Mapping[int, int] | None = None,
        *,
        consent: ConsentForm,
        name: str = "",
    ) -> RemoteIdentity:
        """As `Imagine.identity`, with the consent of the person.

        Raises:
            InvalidInput: a photo or the consent cannot be used; each has its own class.
        """
        fields = {"name": name, **consent_fields(consent), **choice_field(choose)}
        answer = self._ask("POST", "/v1/identities", files=photo_files(photos), data=fields)
        return RemoteIdentity(self, answer.json())

    def find_identity(self, identity_id: str) -> RemoteIdentity:
        """Somebody enrolled before.

        Raises:
            NotStored: the service has nobody of this id for this key.
        """
        return RemoteIdentity(self, self._ask("GET", f"/v1/identities/{identity_id}").json())

    def identities(self) -> list[RemoteIdentity]:
        """Everybody enrolled, newest first."""
        return [RemoteIdentity(self, told) for told in self._all("/v1/identities")]

    def forget(self, identity_id: str, pictures: str = "delete") -> dict[str, Any]:
        """Erase somebody; returns the signed certificate."""
        path = f"/v1/identities/{identity_id}"
        told: dict[str, Any] = self._ask("DELETE", path, params={"pictures": pictures}).json()
        certificate: dict[str, Any] = told["certificate"]
        return certificate

    def consents(self, identity_id: str) -> list[dict[str, Any]]:
        """What somebody agreed to, newest first, as JSON."""
        return self._all(f"/v1/identities/{identity_id}/consents")

    def withdraw(self, identity_id: str) -> None:
        """Take all consent of somebody back: nothing is made of them any more."""
        self._ask("POST", f"/v1/identities/{identity_id}/withdraw")

    def export(self, identity_id: str) -> bytes:
        """Everything about a person, as the bytes of a zip."""
        return self._ask("GET", f"/v1/identities/{identity_id}/export").content

    def import_person(self, archive: bytes, *, consent: ConsentForm) -> list[RemoteIdentity]:
        """Take a person in from an export, under new ids and a consent given here.

        Args:
            archive: what `export` gave, here or elsewhere.
            consent: of the person; consents in the archive count for nothing here.

        Returns:
            Their identities, oldest first; none where the archive has only pictures.

        Raises:
            UnusableArchive: not an export, damaged, changed or too large.
            EnrolmentRefused: somebody in it may not become an identity there.
            InvalidInput: the consent or a face cannot be used; each has its own class.
        """
        told = self._ask(
            "POST",
            "/v1/identities/imports",
            files=archive_file(archive),
            data=consent_fields(consent),
        ).json()
        return [RemoteIdentity(self, one) for one in told["identities"]]

    def begin_camera_check(self, identity_id: str) -> CameraCheck:
        """Ask for a camera check, which verifies somebody; an older one is void from now on.

        Raises:
            NotStored: the service has nobody of this id for this key.
        """
        return camera_check_of(self._ask("POST", f"/v1/identities/{identity_id}/challenges").json())

    def answer_camera_check(
        self, identity_id: str, check: CameraCheck, frames: Sequence[bytes]
    ) -> CheckedByCamera:
        """Send what the camera saw; the frames are measured there and dropped.

        Args:
            identity_id: who is before the camera.
            check: from `begin_camera_check`; good for one answer.
            frames: JPEG files in order, not mirrored, about ten a second.

        Raises:
            NotStored: the check was answered, replaced or never begun.
            ConsentMissing: the person agrees to nothing any more.
            InvalidInput: too few, too many, too large or unreadable frames.
        """
        path = f"/v1/identities/{identity_id}/challenges/{check.id}"
        answer = self._ask("POST", path, files=frame_files(frames), data={"nonce": check.nonce})
        return checked_of(answer.json())

    def generate(
        self,
        prompt: str,
        *,
        identity: RemoteIdentity | str,
        on_progress: OnProgress = None,
        on_preview: OnPreview = None,
        cancel: Cancel = None,
        **wish: Unpack[RemoteWish],
    ) -> RemoteResult:
        """As `Imagine.generate`; also `on_preview` and what `RemoteWish` has more.

        Raises:
            PromptBlocked: policy does not allow the prompt.
            PictureWithheld: not one picture passed the output checks.
            ConsentMissing: the person does not agree, or not any more.
            Cancelled: `cancel` said so, or somebody else stopped it.
            Busy: too much work waits.
            ServiceUnreachable: no answer, or a fault on the side of the service.
        """
        body = wish_body(identity, prompt, wish)
        headers = {"Idempotency-Key": new_key()}
        generation = self._ask("POST", "/v1/generations", json=body, headers=headers).json()
        ended = self._watched(generation, on_progress, on_preview, cancel_question(cancel))
        check_ended_well(ended)
        images = tuple(self._image(told) for told in ended["images"])
        withheld = tuple(ended["withheld"])
        return RemoteResult(ended["id"], images, ended["seed"], self.info, withheld)

    def replay(
        self,
        recipe: Recipe,
        identity: RemoteIdentity | str,
        on_progress: OnProgress = None,
        cancel: Cancel = None,
        *,
        beside: RemoteIdentity | str | None = None,
    ) -> RemoteImage:
        """As `Imagine.replay`; the record is that of the first picture, which must be there still.

        Raises:
            InvalidInput: the recipe needs another model, or other people.
        """
        check_replayable(recipe, self.info)
        wish = replay_wish(recipe, beside)
        result = self.generate(
            recipe.prompt, identity=identity, on_progress=on_progress, cancel=cancel, **wish
        )
        return result.images[0]

    def _image(self, told: Mapping[str, Any]) -> RemoteImage:
        data = self._ask("GET", told["urls"]["content"]).content
        return image_of(told, data, self._ask("GET", told["urls"]["recipe"]).json())

    def _all(self, path: str) -> list[dict[str, Any]]:
        things: list[dict[str, Any]] = []
        page = {"has_more": True, "last_id": None}
        while page["has_more"]:
            after = {"before": page["last_id"]} if page["last_id"] else {}
            page = self._ask("GET", path, params={"limit": 100, **after}).json()
            things += page["data"]
        return things

    def _watched(
        self,
        generation: Mapping[str, Any],
        on_progress: OnProgress,
        on_preview: OnPreview,
        asked: Callable[[], bool],
    ) -> dict[str, Any]:
        """The generation when it has ended; tells of what happens on the way."""
        news: queue.Queue[ServerEvent | ImagineError] = queue.Queue()
        path = generation["urls"]["events"]
        threading.Thread(target=self._listen, args=(path, news), daemon=True).start()
        told_to_stop = False
        try:
            while True:
                if not told_to_stop and asked():
                    told_to_stop = True
                    self._ask("POST", generation["urls"]["cancel"])
                try:
                    event = news.get(timeout=_LOOK_SECONDS)
                except queue.Empty:
                    continue
                if isinstance(event, ImagineError):
                    raise event
                if event.is_last:
                    return event.data
                _pass_on(event, on_progress, on_preview)
        except ImagineError:
            raise
        except BaseException:  # an interrupt, or a callback that broke: nobody waits any more
            self._ask("POST", generation["urls"]["cancel"])
            raise

    def _listen(self, path: str, news: queue.Queue[ServerEvent | ImagineError]) -> None:
        """Put events into a queue until the last one; a lost connection is made again."""
        last_id, attempt = "", 0
        while True:
            try:
                for event in self._events(path, last_id):
                    last_id, attempt = event.id or last_id, 0
                    news.put(event)
                    if event.is_last:
                        return
            except httpx2.TransportError as error:
                if attempt >= MAX_RETRIES:
                    news.put(unreachable(error, self.base_url))
                    return
            except ImagineError as error:
                news.put(error)
                return
            attempt += 1
            time.sleep(pause_seconds(None, attempt))

    def _events(self, path: str, last_id: str) -> Any:
        headers = {**self._headers, **({"Last-Event-ID": last_id} if last_id else {})}
        reader = EventReader()
        with self._http.stream("GET", self.base_url + path, headers=headers) as response:
            if response.status_code >= 400:
                response.read()
                check_answer(response)
            for line in response.iter_lines():
                yield from reader.feed(line)

    def _ask(self, method: str, path: str, **words: Any) -> httpx2.Response:
        """One answer; asked again where that is safe and may help.

        Raises:
            ImagineError: what the service says is wrong, or that it cannot be reached.
        """
        headers = {**self._headers, **words.pop("headers", {})}
        is_safe = method == "GET" or "Idempotency-Key" in headers
        attempt = 0
        while True:
            response: httpx2.Response | None = None
            try:
                response = self._http.request(
                    method, self.base_url + path, headers=headers, **words
                )
            except httpx2.TransportError as error:
                if not is_safe or attempt >= MAX_RETRIES:
                    raise unreachable(error, self.base_url) from error
            if response is not None and not (
                is_safe and may_repeat(response) and attempt < MAX_RETRIES
            ):
                check_answer(response)
                return response
            time.sleep(pause_seconds(response, attempt))
            attempt += 1


class AsyncRemoteIdentity:
    """As `RemoteIdentity`, in an `async with` block."""

    def __init__(self, client: AsyncImagineClient, told: Mapping[str, Any]) -> None:
        self._client = client
        self.facts = dict(told)
        self.id: str = told["id"]
        self.name: str = told["name"]
        self.reports: tuple[PhotoReport, ...] = tuple(map(report_of, told["photos"] or ()))

    def __repr__(self) -> str:
        return f"AsyncRemoteIdentity({self.id!r})"

    async def forget(self) -> dict[str, Any]:
        """Erase the person and every picture of them; returns the signed certificate."""
        return await self._client.forget(self.id)

    async def __aenter__(self) -> AsyncRemoteIdentity:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.forget()


class AsyncImagineClient:
    """As `ImagineClient`, for asyncio; arguments, results and errors are the same."""

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        timeout_seconds: float = 60.0,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = http or httpx2.AsyncClient(timeout=timeout_seconds)
        self._is_ours = http is None

    def __repr__(self) -> str:
        return f"AsyncImagineClient({self.base_url!r})"

    async def __aenter__(self) -> AsyncImagineClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._is_ours:
            await self._http.aclose()

    async def info(self) -> BackendInfo:
        """Facts about the image model of the service."""
        return info_of((await self._ask("GET", "/v1/models")).json()["data"][0])

    async def check(
        self, photos: Sequence[PhotoSource], choose: Mapping[int, int] | None = None
    ) -> tuple[PhotoReport, ...]:
        """As `ImagineClient.check`."""
        answer = await self._ask(
            "POST", "/v1/photo_checks", files=photo_files(photos), data=choice_field(choose)
        )
        return tuple(report_of(told) for told in answer.json())

    async def identity(
        self,
        photos: Sequence[PhotoSource],
        choose: Mapping[int, int] | None = None,
        *,
        consent: ConsentForm,
        name: str = "",
    ) -> AsyncRemoteIdentity:
        """As `ImagineClient.identity`."""
        fields = {"name": name, **consent_fields(consent), **choice_field(choose)}
        answer = await self._ask("POST", "/v1/identities", files=photo_files(photos), data=fields)
        return AsyncRemoteIdentity(self, answer.json())

    async def find_identity(self, identity_id: str) -> AsyncRemoteIdentity:
        """As `ImagineClient.find_identity`."""
        answer = await self._ask("GET", f"/v1/identities/{identity_id}")
        return AsyncRemoteIdentity(self, answer.json())

    async def forget(self, identity_id: str, pictures: str = "delete") -> dict[str, Any]:
        """As `ImagineClient.forget`."""
        path = f"/v1/identities/{identity_id}"
        answer = await self._ask("DELETE", path, params={"pictures": pictures})
        certificate: dict[str, Any] = answer.json()["certificate"]
        return certificate

    async def identities(self) -> list[AsyncRemoteIdentity]:
        """As `ImagineClient.identities`."""
        return [AsyncRemoteIdentity(self, told) for told in await self._all("/v1/identities")]

    async def consents(self, identity_id: str) -> list[dict[str, Any]]:
        """As `ImagineClient.consents`."""
        return await self._all(f"/v1/identities/{identity_id}/consents")

    async def withdraw(self, identity_id: str) -> None:
        """As `ImagineClient.withdraw`."""
        await self._ask("POST", f"/v1/identities/{identity_id}/withdraw")

    async def export(self, identity_id: str) -> bytes:
        """As `ImagineClient.export`."""
        return (await self._ask("GET", f"/v1/identities/{identity_id}/export")).content

    async def import_person(
        self, archive: bytes, *, consent: ConsentForm
    ) -> list[AsyncRemoteIdentity]:
        """As `ImagineClient.import_person`."""
        files, fields = archive_file(archive), consent_fields(consent)
        answer = await self._ask("POST", "/v1/identities/imports", files=files, data=fields)
        return [AsyncRemoteIdentity(self, one) for one in answer.json()["identities"]]

    async def begin_camera_check(self, identity_id: str) -> CameraCheck:
        """As `ImagineClient.begin_camera_check`."""
        answer = await self._ask("POST", f"/v1/identities/{identity_id}/challenges")
        return camera_check_of(answer.json())

    async def answer_camera_check(
        self, identity_id: str, check: CameraCheck, frames: Sequence[bytes]
    ) -> CheckedByCamera:
        """As `ImagineClient.answer_camera_check`."""
        path = f"/v1/identities/{identity_id}/challenges/{check.id}"
        fields = {"nonce": check.nonce}
        answer = await self._ask("POST", path, files=frame_files(frames), data=fields)
        return checked_of(answer.json())

    async def generate(
        self,
        prompt: str,
        *,
        identity: AsyncRemoteIdentity | str,
        on_progress: OnProgress = None,
        on_preview: OnPreview = None,
        cancel: Cancel = None,
        **wish: Unpack[RemoteWish],
    ) -> RemoteResult:
        """As `ImagineClient.generate`; cancelling the task stops the drawing too."""
        body = wish_body(identity, prompt, wish)
        headers = {"Idempotency-Key": new_key()}
        answer = await self._ask("POST", "/v1/generations", json=body, headers=headers)
        ended = await self._watched(answer.json(), on_progress, on_preview, cancel_question(cancel))
        check_ended_well(ended)
        images = [await self._image(told) for told in ended["images"]]
        info, withheld = await self.info(), tuple(ended["withheld"])
        return RemoteResult(ended["id"], tuple(images), ended["seed"], info, withheld)

    async def replay(
        self,
        recipe: Recipe,
        identity: AsyncRemoteIdentity | str,
        on_progress: OnProgress = None,
        cancel: Cancel = None,
        *,
        beside: AsyncRemoteIdentity | str | None = None,
    ) -> RemoteImage:
        """As `ImagineClient.replay`."""
        check_replayable(recipe, await self.info())
        wish = replay_wish(recipe, beside)
        result = await self.generate(
            recipe.prompt, identity=identity, on_progress=on_progress, cancel=cancel, **wish
        )
        return result.images[0]

    async def _image(self, told: Mapping[str, Any]) -> RemoteImage:
        data = (await self._ask("GET", told["urls"]["content"])).content
        recipe = await self._ask("GET", told["urls"]["recipe"])
        return image_of(told, data, recipe.json())

    async def _all(self, path: str) -> list[dict[str, Any]]:
        things: list[dict[str, Any]] = []
        page = {"has_more": True, "last_id": None}
        while page["has_more"]:
            after = {"before": page["last_id"]} if page["last_id"] else {}
            page = (await self._ask("GET", path, params={"limit": 100, **after})).json()
            things += page["data"]
        return things

    async def _watched(
        self,
        generation: Mapping[str, Any],
        on_progress: OnProgress,
        on_preview: OnPreview,
        asked: Callable[[], bool],
    ) -> dict[str, Any]:
        news: asyncio.Queue[ServerEvent | ImagineError] = asyncio.Queue()
        listening = asyncio.create_task(self._listen(generation["urls"]["events"], news))
        told_to_stop = False
        try:
            while True:
                if not told_to_stop and asked():
                    told_to_stop = True
                    await self._ask("POST", generation["urls"]["cancel"])
                try:
                    event = await asyncio.wait_for(news.get(), _LOOK_SECONDS)
                except TimeoutError:
                    continue
                if isinstance(event, ImagineError):
                    raise event
                if event.is_last:
                    return event.data
                _pass_on(event, on_progress, on_preview)
        except asyncio.CancelledError:
            await asyncio.shield(self._ask("POST", generation["urls"]["cancel"]))
            raise
        finally:
            listening.cancel()

    async def _listen(self, path: str, news: asyncio.Queue[ServerEvent | ImagineError]) -> None:
        last_id, attempt = "", 0
        while True:
            try:
                async for event in self._events(path, last_id):
                    last_id, attempt = event.id or last_id, 0
                    news.put_nowait(event)
                    if event.is_last:
                        return
            except httpx2.TransportError as error:
                if attempt >= MAX_RETRIES:
                    news.put_nowait(unreachable(error, self.base_url))
                    return
            except ImagineError as error:
                news.put_nowait(error)
                return
            attempt += 1
            await asyncio.sleep(pause_seconds(None, attempt))

    async def _events(self, path: str, last_id: str) -> Any:
        headers = {**self._headers, **({"Last-Event-ID": last_id} if last_id else {})}
        reader = EventReader()
        async with self._http.stream("GET", self.base_url + path, headers=headers) as response:
            if response.status_code >= 400:
                await response.aread()
                check_answer(response)
            async for line in response.aiter_lines():
                for event in reader.feed(line):
                    yield event

    async def _ask(self, method: str, path: str, **words: Any) -> httpx2.Response:
        headers = {**self._headers, **words.pop("headers", {})}
        is_safe = method == "GET" or "Idempotency-Key" in headers
        attempt = 0
        while True:
            response: httpx2.Response | None = None
            try:
                response = await self._http.request(
                    method, self.base_url + path, headers=headers, **words
                )
            except httpx2.TransportError as error:
                if not is_safe or attempt >= MAX_RETRIES:
                    raise unreachable(error, self.base_url) from error
            if response is not None and not (
                is_safe and may_repeat(response) and attempt < MAX_RETRIES
            ):
                check_answer(response)
                return response
            await asyncio.sleep(pause_seconds(response, attempt))
            attempt += 1


def check_replayable(recipe: Recipe, info: BackendInfo) -> None:
    """Refuse a recipe that would draw another picture here.

    Raises:
        InvalidInput: it needs another model.
    """
    if (recipe.backend, recipe.model_revision) != (info.name, info.model_revision):
        raise InvalidInput(
            f"This picture was made by {recipe.backend} {recipe.model_revision}; the service has "
            f"{info.name} {info.model_revision}, which would draw another one."
        )


def _pass_on(event: ServerEvent, on_progress: OnProgress, on_preview: OnPreview) -> None:
    if event.kind == "progress" and on_progress is not None:
        on_progress(event.progress)
    elif event.kind == "preview" and on_preview is not None:
        on_preview(event.preview)
