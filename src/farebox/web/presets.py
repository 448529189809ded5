"""/presets: what an account keeps under names for its orders, in OpenRouter's shapes. DELETE is Farebox's own.

Source of the shapes: OpenRouter's OpenAPI document. A POST there is an order's body that is kept, and orders nothing.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from uuid import NAMESPACE_URL, uuid5

import msgspec
from msgspec import Raw
from starlette.types import Receive, Scope, Send

from farebox import clock
from farebox.acting import acting
from farebox.core.callers import Caller
from farebox.core.errors import conflict, invalid, unknown
from farebox.core.formats.table import BASES
from farebox.core.headers import read_request_head
from farebox.core.presets import PLACES, PRESETS_MAX, SLUG, PresetVersion, checked_slug, preset_of
from farebox.core.reading import read_whole
from farebox.core.trail import By
from farebox.http.asgi import AsgiBody, Endpoint, send_json
from farebox.http.bodies import BodyReader
from farebox.http.queries import WHOLE_MAX, query_values, query_whole
from farebox.ports import Callers, PresetInUse, PresetShelf, TooManyPresets

PAGE_DEFAULT, PAGE_MAX = 50, 100
"""OpenRouter's."""

Body = Callable[[], Awaitable[bytes]]
Do = Callable[[Caller, Scope, Body], Awaitable[object]]


class PresetPages:
    """The endpoints. Each is one of the methods below, which return the answer's body."""

    def __init__(self, callers: Callers, shelf: PresetShelf, bodies: BodyReader) -> None:
        self._callers = callers
        self._shelf = shelf
        self._bodies = bodies

    def routes(self) -> list[tuple[str, list[str], Endpoint]]:
        """Paths, their methods, and their endpoints."""
        below = {
            "/presets": self._serve(GET=self._list),
            "/presets/{slug}": self._serve(GET=self._read, DELETE=self._drop),
            "/presets/{slug}/versions": self._serve(GET=self._versions),
            "/presets/{slug}/versions/{version}": self._serve(GET=self._version),
            **{f"/presets/{{slug}}{path}": self._serve(POST=partial(self._save, path)) for path in PLACES},
        }
        return [(base + path, *served) for path, served in below.items() for base in BASES]

    def _serve(self, **methods: Do) -> tuple[list[str], Endpoint]:
        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            head = read_request_head(scope["headers"])
            caller = await self._callers.identify(head)
            do = methods["GET" if scope["method"] == "HEAD" else scope["method"]]

            async def read() -> bytes:
                body = await self._bodies.read_json(AsgiBody(scope, receive), head)
                await self._callers.identify(head)  # it may have been long in coming
                return body

            with acting(By("api", caller.key.label, key_id=caller.key.id)):
                answer = await do(caller, scope, read)
            await send_json(send, msgspec.json.encode(answer))

        return list(methods), endpoint

    async def _list(self, caller: Caller, scope: Scope, _: Body) -> object:
        return _page(scope, [_described(each) for each in await self._shelf.presets(caller.account.id)])

    async def _read(self, caller: Caller, scope: Scope, _: Body) -> object:
        return {"data": _whole(await self._find(caller, scope), caller)}

    async def _drop(self, caller: Caller, scope: Scope, _: Body) -> object:
        slug = _slug(scope)
        if not await self._shelf.drop_preset(caller.account.id, slug):
            raise _no_such(slug)
        return {"deleted": True}

    async def _versions(self, caller: Caller, scope: Scope, _: Body) -> object:
        slug = _slug(scope)
        every = await self._shelf.preset_versions(caller.account.id, slug)
        if not every:
            raise _no_such(slug)
        return _page(scope, [_version(each, caller) for each in every])

    async def _version(self, caller: Caller, scope: Scope, _: Body) -> object:
        text: str = scope["path_params"]["version"]
        number = read_whole(text, 1, WHOLE_MAX)
        if number is None:
            raise invalid(f"version: a whole number from 1 up, not {text[:40]!r}")
        return {"data": _version(await self._find(caller, scope, number), caller)}

    async def _save(self, path: str, caller: Caller, scope: Scope, body: Body) -> object:
        """Keep what an order's body says as a preset, or as its next version."""
        slug = checked_slug(scope["path_params"]["slug"])
        system_prompt, config = preset_of(path, await body())
        try:
            saved = await self._shelf.save_preset(caller.account.id, slug, system_prompt, config, clock.now_us())
        except TooManyPresets as error:
            raise invalid(
                f"slug: this account has {PRESETS_MAX} presets, the most; DELETE {BASES[0]}/presets/... one, or write a"
                " version of one"
            ) from error
        except PresetInUse as error:
            raise conflict(f"another version of `{slug}` is just being written; try again", 1) from error
        return {"data": _whole(saved, caller)}

    async def _find(self, caller: Caller, scope: Scope, version: int | None = None) -> PresetVersion:
        slug = _slug(scope)
        found = await self._shelf.preset(caller.account.id, slug, version)
        if found is None:
            raise _no_such(slug, version)
        return found


def _slug(scope: Scope) -> str:
    """The one that a path names. Raises Refusal 404: no preset has such a one."""
    slug: str = scope["path_params"]["slug"]
    if not SLUG.fullmatch(slug):
        raise _no_such(slug)
    return slug


def _no_such(slug: str, version: int | None = None) -> Exception:
    which = "preset" if version is None else f"version {version} of a preset"
    return unknown(f"there is no {which} `{slug[:200]}` in this account")


def _page(scope: Scope, every: list[dict[str, object]]) -> dict[str, object]:
    query: Mapping[str, str] = query_values(scope)
    start, most = query_whole(query, "offset", 0), query_whole(query, "limit", PAGE_DEFAULT, least=1)
    if most > PAGE_MAX:
        raise invalid(f"limit: at most {PAGE_MAX}, not {most}")
    return {"data": every[start : start + most], "total_count": len(every)}


def _described(preset: PresetVersion) -> dict[str, object]:
    """A preset. It has no name but its slug, and nobody who made it but its account, which has one of its own."""
    return {
        "id": _id(preset),
        "slug": preset.slug,
        "name": preset.slug,
        "description": None,
        "status": "active",
        "status_updated_at": None,
        "designated_version_id": _id(preset, preset.version),
        "created_at": _moment(preset.first_us),
        "updated_at": _moment(preset.created_us),
        "creator_user_id": None,
        "workspace_id": None,
    }


def _whole(preset: PresetVersion, caller: Caller) -> dict[str, object]:
    """With its latest version, which is the one that orders get."""
    return {**_described(preset), "designated_version": _version(preset, caller)}


def _version(preset: PresetVersion, caller: Caller) -> dict[str, object]:
    return {
        "id": _id(preset, preset.version),
        "preset_id": _id(preset),
        "creator_id": caller.account.name,
        "version": preset.version,
        "system_prompt": preset.system_prompt,
        "config": Raw(preset.config.encode()),
        "created_at": _moment(preset.created_us),
        "updated_at": _moment(preset.created_us),
    }


def _id(preset: PresetVersion, version: int = 0) -> str:
    """Of a preset, or of a version of one: the same at every node."""
    return str(uuid5(NAMESPACE_URL, f"farebox:preset/{preset.account_id}/{preset.slug}/{version}"))


def _moment(us: int) -> str:
    return clock.iso(us, "milliseconds")
