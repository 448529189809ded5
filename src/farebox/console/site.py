"""Every page of the console, in one table, and what holds for all of them: who may see it, what a form must carry,
which headers an answer has, how a mistake is told."""

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

from starlette.types import Receive, Scope, Send

from farebox import clock
from farebox.accounts import BadTerms, NotFound, OtherTopUpBefore
from farebox.acting import acting
from farebox.console import (
    accounts,
    alerts,
    bookkeeping,
    changing,
    end_users,
    keys,
    live,
    models,
    orders,
    overview,
    playground,
    reconciling,
    rendering,
    statement,
    trail,
)
from farebox.console.entrance import PATH
from farebox.console.house import House
from farebox.console.requests import Answer, Download, Page, Redirect, Relayed, Request, Viewer, viewer_of
from farebox.console.sessions import check_form, cookie, form_token, token_in
from farebox.core.errors import Refusal, forbidden, invalid, unknown, wrong_method
from farebox.core.headers import HeaderList, read_request_head
from farebox.http.asgi import JSON, TAKER, AsgiBody, AsgiCall, send_pieces, send_whole
from farebox.http.queries import query_values
from farebox.ports import BooksUnavailable, NameTaken
from farebox.reconcile import NotOpen
from farebox.web.access import host_of, is_loopback
from farebox.web.own_address import NO_ADDRESS

log = logging.getLogger("farebox")

BODY_BYTES_MAX = 64 * 1024
FIELDS_MAX = 100

_HTML = (b"content-type", b"text/html; charset=utf-8")
_CSV = (b"content-type", b"text/csv; charset=utf-8")
_FORM = b"application/x-www-form-urlencoded"

Do = Callable[[House, Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Place:
    """A path below `/console`, and what answers GET and POST there."""

    path: str
    show: Do | None
    do: Do | None = None

    @property
    def methods(self) -> str:
        return ", ".join(name for name, do in (("GET", self.show), ("POST", self.do)) if do is not None)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A file whose first piece has been read: so what cannot be read is told by a page."""

    first: bytes
    further: AsyncGenerator[bytes, None]

    async def all(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self.further):
            yield self.first
            async for piece in self.further:
                yield piece


_Shown = tuple[int, HeaderList, bytes | _Begun]

PLACES = (
    Place("", overview.show),
    Place("/spent", overview.show_spent),
    Place("/keys", keys.show, keys.create),
    Place("/keys/new", keys.confirm_new),
    Place("/keys/{key}", keys.show_one, keys.change),
    Place("/keys/{key}/change", changing.confirm_key),
    Place("/end-users", end_users.show, end_users.change),
    Place("/end-users/change", changing.confirm_end_users),
    Place("/accounts", accounts.show, accounts.create),
    Place("/accounts/new", accounts.confirm_new),
    Place("/accounts/{account}", accounts.show_one, accounts.change),
    Place("/accounts/{account}/change", changing.confirm_account),
    Place("/accounts/{account}/top-up", accounts.confirm_top_up, accounts.top_up),
    Place("/live", live.show),
    Place("/models", models.show),
    Place("/orders", orders.show),
    Place("/orders/{order}", orders.show_one),
    Place("/generations/{generation}", orders.show_generation),
    Place("/playground", playground.show, playground.place),
    Place("/playground/code", None, playground.show_code),
    Place("/playground/answer", None, playground.relay),
    Place("/statement", statement.show),
    Place("/statement/books/{form}", bookkeeping.download),
    Place("/invoice", bookkeeping.show_invoice),
    Place("/alerts", alerts.show, alerts.create),
    Place("/alerts/new", None, alerts.confirm_new),
    Place("/alerts/{alert}", None, alerts.change),
    Place("/reconcile", reconciling.show),
    Place("/reconcile/{order}", reconciling.show_one, reconciling.decide),
    Place("/trail", trail.show),
)

_PATHS = [
    (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+?)", place.path) + r"(\.(csv|json))?"), place) for place in PLACES
]


class Site:
    """The ASGI endpoint of the console."""

    def __init__(self, house: House) -> None:
        self._house = replace(house, bodies=house.bodies.shorter(BODY_BYTES_MAX))
        self._watching = live.Watching(self._house)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = _Head(scope)
        try:
            if scope["path"] == PATH + live.EVENTS:
                await self._follow(head, scope, AsgiCall(scope, receive, send))
                return
            sent = await self._answer(head, scope, receive)
        except (Refusal, NotFound, BadTerms, NameTaken, OtherTopUpBefore, NotOpen, BooksUnavailable) as error:
            sent = await self._refused(head, _refusal_of(error))
        if isinstance(sent, Relayed):
            await sent.serve(scope, receive, send)
            return
        status, headers, body = sent
        if isinstance(body, _Begun):
            pieces = body.all()
            await send_pieces(send, [*headers, *rendering.SAFETY], pieces, scope.get(TAKER))
        else:
            await send_whole(send, status, [*headers, *rendering.SAFETY], body)

    async def _answer(self, head: "_Head", scope: Scope, receive: Receive) -> "_Shown | Relayed":
        below = scope["path"].removeprefix(PATH)
        if below.startswith("/static/"):
            return _file(below.removeprefix("/static/"))
        form: Mapping[str, str] = {}
        if scope["method"] == "POST":
            self._check_own_page(scope, head)
            form = await self._form(scope, receive)
        elif scope["method"] not in ("GET", "HEAD"):
            raise wrong_method(scope["method"], "GET, HEAD, POST")
        if below == "/sign-in":
            return await self._sign_in(head, form, scope)
        if below.startswith("/enter/"):
            return await self._enter(head, below.removeprefix("/enter/"), scope)
        viewer = await self._viewer(head)
        if viewer is None:
            if scope["method"] == "POST" or below.endswith((".csv", ".json")):
                raise Refusal(401, "authentication", "Nobody is signed in here any more: sign in again")
            return _to("/sign-in")
        if scope["method"] == "POST":
            check_form(head.session, form.get("form", ""))
        if below == "/sign-out":
            return await self._sign_out(head, scope)
        return await self._serve(head, viewer, below, scope, form)

    async def _follow(self, head: "_Head", scope: Scope, call: AsgiCall) -> None:
        """Orders as they come, for a page of the console's own."""
        if scope["method"] != "GET":
            raise wrong_method(scope["method"], "GET")
        _check_not_from_elsewhere(scope)
        viewer = await self._viewer(head)
        if viewer is None:
            raise Refusal(401, "authentication", "Nobody is signed in here any more: sign in again")
        await self._watching.follow(
            call, Request(viewer, head.session, {}, query_values(scope), {}, clock.now_us(), "")
        )

    async def _serve(
        self, head: "_Head", viewer: Viewer, below: str, scope: Scope, form: Mapping[str, str]
    ) -> "_Shown | Relayed":
        place, path, form_of_list = _find(below)
        do = place.do if scope["method"] == "POST" else place.show
        if do is None:
            raise wrong_method(scope["method"], place.methods)
        address = (self._house.public_url or "").rstrip("/") or NO_ADDRESS.told_by(scope["headers"])
        now_us, is_download = clock.now_us(), bool(form_of_list)
        request = Request(viewer, head.session, path, query_values(scope), form, now_us, address, is_download)
        with acting(viewer.by(head.session)):
            answer = await do(self._house, request)
        if isinstance(answer, Relayed):
            return answer
        if isinstance(answer, Redirect):
            return _to(answer.path)
        if isinstance(answer, Download):
            named = f'attachment; filename="{answer.name}"'.encode("ascii", "replace")
            about = [(b"content-type", answer.content_type), (b"content-disposition", named), *rendering.UNKEPT]
            return 200, about, _Begun(await anext(answer.pieces, b""), answer.pieces)
        if form_of_list and not answer.columns:
            raise unknown(f"There is no list at {below[:200]!r}")
        return self._shown(head, viewer, answer, request, below, form_of_list)

    def _shown(
        self, head: "_Head", viewer: Viewer, page: Page, request: Request, below: str, form_of_list: str
    ) -> tuple[int, HeaderList, bytes]:
        now = clock.iso(request.now_us, "seconds")
        bare = below.removesuffix(f".{form_of_list}") if form_of_list else below
        further = None if page.next_query is None else rendering.query_text({**request.query, **page.next_query})
        if form_of_list == "json":
            there = None if further is None else f"{PATH}{bare}.json?{further}"
            return page.status, [JSON, *rendering.UNKEPT], rendering.as_json(page, now, there)
        if form_of_list == "csv":
            name = bare.strip("/").replace("/", "-") or "spent"
            more: HeaderList = [
                (b"content-disposition", f'attachment; filename="farebox-{name}.csv"'.encode("ascii", "replace"))
            ]
            if further is not None:
                more.append((b"link", f'<{PATH}{bare}.csv?{further}>; rel="next"'.encode("ascii", "replace")))
            return page.status, [_CSV, *rendering.UNKEPT, *more], rendering.as_csv(page)
        asked = rendering.query_text(request.query)
        body = rendering.html(
            page,
            viewer=viewer,
            form=form_token(head.session),
            here=bare,
            lists=f"{PATH}{bare}{{}}{'?' + asked if asked else ''}" if page.columns else None,
            further=None if further is None else f"{PATH}{bare}?{further}",
            now_us=request.now_us,
        )
        return page.status, [_HTML, *rendering.UNKEPT], body

    async def _viewer(self, head: "_Head") -> Viewer | None:
        found = await self._house.sessions.find(head.session)
        return None if found is None else viewer_of(found)

    # Signing in and out

    async def _sign_in(self, head: "_Head", form: Mapping[str, str], scope: Scope) -> tuple[int, HeaderList, bytes]:
        if scope["method"] != "POST":
            return self._sign_in_page(200, None)
        try:
            token = await self._house.sessions.open(form.get("key", ""))
        except Refusal as refusal:
            status, headers, body = self._sign_in_page(refusal.status, refusal.message)
            more = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
            return status, [*headers, *more], body
        return await self._signed_in(head, token)

    def _sign_in_page(self, status: int, problem: str | None) -> tuple[int, HeaderList, bytes]:
        page = Page("sign-in.html", {"problem": problem})
        return status, [_HTML, *rendering.UNKEPT], rendering.html(page, viewer=None, now_us=clock.now_us())

    async def _enter(self, head: "_Head", token: str, scope: Scope) -> tuple[int, HeaderList, bytes]:
        """A link that signs in once, on this machine: what is looked at ahead of a click uses nothing up, the button
        does."""
        if not is_loopback(host_of(scope)):
            raise forbidden("Links that sign in are for browsers on the gateway's own machine; sign in with a key")
        if scope["method"] == "POST":
            return await self._signed_in(head, await self._house.sessions.open_by_link(token))
        page = Page("enter.html", {"token": token[:100]})
        return 200, [_HTML, *rendering.UNKEPT], rendering.html(page, viewer=None, now_us=clock.now_us())

    async def _signed_in(self, head: "_Head", token: str) -> tuple[int, HeaderList, bytes]:
        await self._house.sessions.close(head.session)
        return _to("", cookie(token, is_secure=head.is_secure))

    async def _sign_out(self, head: "_Head", scope: Scope) -> tuple[int, HeaderList, bytes]:
        if scope["method"] != "POST":
            raise wrong_method(scope["method"], "POST")
        await self._house.sessions.close(head.session)
        return _to("/sign-in", cookie("", is_secure=head.is_secure))

    # What is sent

    def _check_own_page(self, scope: Scope, head: "_Head") -> None:
        """Raises Refusal 403: a form was sent from a page elsewhere, or by what does not say from where."""
        _check_not_from_elsewhere(scope)
        own = {head.host, urlsplit(self._house.public_url or "").netloc.lower()} - {""}
        if urlsplit(head.origin).netloc.lower() not in own:
            raise forbidden(
                "This form does not come from the console's own page, as far as its Origin says; behind a proxy,"
                " FAREBOX_PUBLIC_URL says under which address people come"
            )

    async def _form(self, scope: Scope, receive: Receive) -> Mapping[str, str]:
        head = read_request_head(scope["headers"])
        if head.media_type != _FORM:
            raise invalid("content-type: a form is application/x-www-form-urlencoded")
        body = await self._house.bodies.read(AsgiBody(scope, receive), head)
        try:
            form = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX))
        except ValueError as error:
            raise invalid("The form cannot be read") from error
        if any("\0" in text for text in form.values()):
            raise invalid("A NUL character stands in the form")
        return form

    async def _refused(self, head: "_Head", refusal: Refusal) -> tuple[int, HeaderList, bytes]:
        viewer = None
        if refusal.status != 503:
            try:
                viewer = await self._viewer(head)
            except BooksUnavailable:
                log.warning("the console cannot read the books")
        headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
        values = {"problem": refusal.message, "what": HTTPStatus(refusal.status).phrase}
        body = rendering.html(
            Page("problem.html", values),
            viewer=viewer,
            form=form_token(head.session),
            here="/",
            lists=None,
            further=None,
            now_us=clock.now_us(),
        )
        return refusal.status, [_HTML, *rendering.UNKEPT, *headers], body


class _Head:
    """What is read of a request's headers."""

    def __init__(self, scope: Scope) -> None:
        self.session = token_in(scope["headers"])
        values = dict(scope["headers"])
        self.origin = values.get(b"origin", b"").decode("latin-1")
        self.host = values.get(b"host", b"").decode("latin-1").lower()
        self.is_secure = self.origin.startswith("https://")


def _check_not_from_elsewhere(scope: Scope) -> None:
    """Raises Refusal 403: a browser says that it asks for a page elsewhere."""
    sent_from = {value for name, value in scope["headers"] if name == b"sec-fetch-site"}
    if sent_from - {b"same-origin"}:
        raise forbidden("This was sent from a page elsewhere")


def _find(below: str) -> tuple[Place, Mapping[str, str], str]:
    """The place, the parts of its path, and the form of list that is asked for. Raises Refusal 404."""
    for pattern, place in _PATHS:
        if (found := pattern.fullmatch(below)) is not None:
            return place, found.groupdict(), (found[found.re.groups] or "")
    raise unknown(f"There is no page at {below[:200]!r}")


def _file(name: str) -> tuple[int, HeaderList, bytes]:
    found = rendering.file_of(name)
    if found is None:
        raise unknown("There is no such file")
    return 200, [(b"content-type", found[1]), (b"cache-control", b"public, max-age=31536000, immutable")], found[0]


def _to(path: str, *headers: tuple[bytes, bytes]) -> tuple[int, HeaderList, bytes]:
    """Look there now: at a page of the console's own, by GET."""
    return 303, [(b"location", f"{PATH}{path}".encode()), *rendering.UNKEPT, *headers], b""


def _refusal_of(error: Exception) -> Refusal:
    match error:
        case Refusal():
            return error
        case NotFound():
            return unknown(str(error))
        case NameTaken():
            return invalid(f"There is an account `{error}` already")
        case BooksUnavailable():
            return Refusal(503, "provider_unavailable", f"The books cannot be read now: {error}")
        case _:
            return invalid(str(error))
