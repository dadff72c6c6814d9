"""From a request to the resource that answers it, and from what that raises to a refusal.

A resource is an object with ``on_get``, ``on_post``, ``on_put`` or ``on_delete``: a plain function when it answers at
once, a coroutine when it has to wait for something. So a read costs no task. It knows no connection.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NoReturn

from ringfence.api.answers import HttpRefusal, answer_error, answer_refusal
from ringfence.api.exchange import Answering, BodyLimits, Request, Response
from ringfence.policy.errors import NotFound, OperatorError, RingfenceError

METHODS: Final = ("GET", "POST", "PUT", "DELETE")

_PLACE: Final = re.compile(r"{[a-z]+}")

Responder = Callable[..., Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class _Route:
    template: str
    responders: dict[str, Responder]


class Routes:
    """Templates as ``/v2/security-group/{group}:attach``; a place in braces is one segment, or the part of one."""

    def __init__(self) -> None:
        self._fixed: dict[str, _Route] = {}
        self._placed: list[_Route] = []
        self._pattern: re.Pattern[str] | None = None
        self._by_group: dict[int, _Route] = {}

    def add(self, template: str, resource: object) -> None:
        found = {name: getattr(resource, f"on_{name.lower()}", None) for name in METHODS}
        route = _Route(template, {name: responder for name, responder in found.items() if responder is not None})
        if "{" in template:
            self._placed.append(route)
            self._pattern = None
        else:
            self._fixed[template] = route

    def find(self, path: str) -> tuple[_Route, tuple[str, ...]] | None:
        """The route for ``path``, and what stands in its places."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, ()
        found = (self._pattern or self._compile()).fullmatch(path)
        if found is None or found.lastindex is None:
            return None
        route = self._by_group[found.lastindex]
        return route, found.groups()[found.lastindex : found.lastindex + route.template.count("{")]

    def _compile(self) -> re.Pattern[str]:
        """One pattern, with a group for each route around those of its places. What is more exact comes first."""
        parts, groups = [], 1
        self._by_group = {}
        for route in sorted(self._placed, key=lambda one: one.template.endswith("}")):
            self._by_group[groups] = route
            first, *words = map(re.escape, _PLACE.split(route.template))
            parts.append("".join(("(", first, *(_segment(word) + word for word in words), ")")))
            groups += 1 + route.template.count("{")
        self._pattern = re.compile("|".join(parts), re.DOTALL)
        return self._pattern


def _segment(behind: str) -> str:
    """What stands in a place before ``behind``. It gives nothing back (``++``): what does not fit costs little."""
    return "([^/:]++)" if behind.startswith(":") else "([^/]++)"


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
    """What answers where there is nothing at all."""
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


def _not_allowed(request: Request, route: _Route) -> HttpRefusal:
    text = f"{request.method} is not a method of {shown_path(request.path)}; the Allow header names those that are"
    return HttpRefusal(HTTPStatus.METHOD_NOT_ALLOWED, text, ("allow", ", ".join(sorted(route.responders))))
