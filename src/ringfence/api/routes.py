"""From a request to the resource that answers it, and from what that raises to a refusal.

A resource is an object with ``on_get``, ``on_post``, ``on_put`` or ``on_delete``: a plain function when it answers at
once, a coroutine when it has to wait for something. So a read costs no task. What has ``on_get`` answers HEAD by it,
whose body the connection leaves out, and every resource tells its methods to OPTIONS (RFC 9110, 9.3). It knows no
connection.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Final, NoReturn

from ringfence.api.answers import HttpRefusal, answer_error, answer_refusal
from ringfence.api.exchange import Answering, BodyLimits, Request, Response
from ringfence.policy.errors import NotFound, OperatorError, RingfenceError

METHODS: Final = ("GET", "POST", "PUT", "DELETE")

Responder = Callable[..., Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class _Route:
    template: str
    responders: dict[str, Responder]


@dataclass(slots=True)
class _Node:
    """What may follow in a path: a fixed word, a placeholder, or a placeholder with a fixed word behind a colon."""

    words: dict[str, "_Node"] = field(default_factory=dict)
    verbs: dict[str, "_Node"] = field(default_factory=dict)
    place: "_Node | None" = None
    route: _Route | None = None  # of the path that ends here


class Routes:
    """Templates like ``/v2/security-group/{group}:attach``; a placeholder is a segment, or its part before a colon."""

    def __init__(self) -> None:
        self._root = _Node()
        self._whole: dict[str, _Route] = {}  # those without a place, by their paths

    def add(self, template: str, resource: object) -> None:
        found = {name: getattr(resource, f"on_{name.lower()}", None) for name in METHODS}
        node = self._root
        for segment in template.split("/"):
            place, _, verb = segment.partition(":")
            if not place.startswith("{"):
                node = node.words.setdefault(segment, _Node())
            elif verb:
                node = node.verbs.setdefault(verb, _Node())
            else:
                node.place = node.place or _Node()
                node = node.place
        responders = {name: responder for name, responder in found.items() if responder is not None}
        if "GET" in responders:
            responders["HEAD"] = responders["GET"]
        responders["OPTIONS"] = partial(_tell_methods, responders)
        node.route = _Route(template, responders)
        if "{" not in template:
            self._whole[template] = node.route

    def find(self, path: str) -> tuple[_Route, list[str]] | None:
        """The route for ``path``, and the values of its placeholders. A fixed word wins over a placeholder.

        Where a template has a verb behind a placeholder, a colon is followed by a verb, also by one that nobody has.
        """
        if (whole := self._whole.get(path)) is not None:
            return whole, []
        node, places = self._root, []
        for segment in path.split("/"):
            if (following := node.words.get(segment)) is None:
                place, colon, verb = segment.partition(":")
                following = node.verbs.get(verb) if place else None
                if following is None:
                    place, following = segment, None if colon and node.verbs else node.place
                if following is None or not place:
                    return None
                places.append(place)
            node = following
        return None if node.route is None else (node.route, places)


class App:
    """Resources under their routes. ``admit`` raises for who may not ask; ``fresh`` is waited for before anything else.

    ``unrouted`` refuses what no route is for.
    """

    limits = BodyLimits()

    def __init__(
        self,
        *,
        fresh: Callable[[], Awaitable[None]] | None = None,
        admit: Callable[[Request], None] = lambda _: None,
        unrouted: Callable[[Request], NoReturn] | None = None,
    ) -> None:
        self._routes = Routes()
        self._fresh = fresh
        self._admit = admit
        self._unrouted = unrouted or refuse_unknown

    def add_route(self, template: str, resource: object) -> None:
        self._routes.add(template, resource)

    def __call__(self, request: Request) -> Answering:
        """The answer, or a refusal. Raises what nobody expected."""
        return self._answer(request) if self._fresh is None else self._answer_freshly(self._fresh, request)

    def refuse(self, _: Request, answer: Response) -> Response:
        return answer

    def give_up(self, request: Request) -> None:
        """Nothing was begun for it."""

    def end(self) -> None:
        """Nothing is open here."""

    async def _answer_freshly(self, fresh: Callable[[], Awaitable[None]], request: Request) -> Response:
        try:
            await fresh()
        except RingfenceError as error:
            return _refusal(request, error)
        answer = self._answer(request)
        return answer if isinstance(answer, Response) else await answer

    def _answer(self, request: Request) -> Answering:
        response = Response()
        try:
            waited = self._ask(request, response)
        except (RingfenceError, HttpRefusal) as error:
            return _refusal(request, error)
        return response if waited is None else _finish(waited, request, response)

    def _ask(self, request: Request, response: Response) -> Awaitable[None] | None:
        found = self._routes.find(request.path)
        if found is None:
            self._unrouted(request)
        route, places = found
        request.route = route.template
        self._admit(request)
        responder = route.responders.get(request.method)
        if responder is None:
            raise _not_allowed(request, route)
        return responder(request, response, *places)


def refuse_unknown(request: Request) -> NoReturn:
    """The answer where there is no route."""
    raise NotFound(f"there is nothing at {shown_path(request.path)}: the API is at /v2")


def shown_path(path: str) -> str:
    """A path as it may be said to its caller: ASCII, and not too long."""
    return ascii(path)[1:-1][:128]


async def _finish(waited: Awaitable[None], request: Request, response: Response) -> Response:
    try:
        await waited
    except (RingfenceError, HttpRefusal) as error:
        return _refusal(request, error)
    return response


def _refusal(request: Request, error: RingfenceError | HttpRefusal) -> Response:
    if isinstance(error, HttpRefusal):
        return answer_refusal(error)
    if isinstance(error, OperatorError):
        request.why = str(error)
    return answer_error(error)


def _tell_methods(responders: Mapping[str, Responder], _: Request, response: Response, *_places: str) -> None:
    response.status = HTTPStatus.NO_CONTENT
    response.set_header("allow", ", ".join(sorted(responders)))


def _not_allowed(request: Request, route: _Route) -> HttpRefusal:
    allowed = ", ".join(sorted(route.responders))
    text = f"{request.method} is not a method of {shown_path(request.path)}, which has {allowed} alone"
    return HttpRefusal(HTTPStatus.METHOD_NOT_ALLOWED, text, ("allow", allowed))
