"""GET or POST /admin/v1/{explain,reach,…}: what is asked of the policy alone, over the newest snapshot."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from ringfence.api.enforcement import tell_who_enforces
from ringfence.api.exchange import Request, Response, put_json
from ringfence.api.routes import App
from ringfence.control.plane import ControlPlane
from ringfence.control.questions import ANSWERS, Answer, Query, Questions
from ringfence.policy.snapshot import Snapshot
from ringfence.wire.decode import convert
from ringfence.wire.document import parse_document

_TELL: Final = {"explain": tell_who_enforces}  # by the name of the question


@dataclass(frozen=True, slots=True)
class _Question:
    """Answered in a thread: some ten milliseconds, for the matrix of a large fleet some seconds.

    ``tell`` adds what the server knows besides the policy.
    """

    plane: ControlPlane
    answer: Callable[[Snapshot, Query], Answer]
    tell: Callable[[ControlPlane, Answer], Answer]

    async def on_get(self, request: Request, response: Response) -> None:
        await self._answer(response, {name: str(request.get_param(name)) for name in request.params})

    async def on_post(self, request: Request, response: Response) -> None:
        """The same; the arguments are a JSON object of texts, which may be longer than a line."""
        await self._answer(response, convert(parse_document(request.body), dict[str, str]))

    async def _answer(self, response: Response, query: Query) -> None:
        answer = await asyncio.to_thread(self.answer, self.plane.snapshot, query)
        put_json(response, self.tell(self.plane, answer))


def add_question_routes(app: App, plane: ControlPlane) -> None:
    """Adds a route for each question; they share one cache."""
    questions = Questions()
    for name, answer in ANSWERS.items():
        asked = _Question(plane, partial(answer, questions), _TELL.get(name, _tell_nothing))
        app.add_route(f"/admin/v1/{name}", asked)


def _tell_nothing(_: ControlPlane, answer: Answer) -> Answer:
    return answer
