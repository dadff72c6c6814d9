"""Which resource answers what, at once or later, and how it is refused."""

import asyncio
import json

import pytest

from ringfence.api.exchange import Ends, Request, Response
from ringfence.api.routes import App
from ringfence.policy.errors import Busy, Invalid


class Thing:
    def __init__(self, name):
        self.name = name

    def on_get(self, _, response, *places):
        response.data = " ".join((self.name, *places)).encode()

    async def on_post(self, request, response, *_):
        await asyncio.sleep(0)
        if request.body:
            raise Busy("later")
        response.data = b"posted"

    def on_delete(self, *_):
        raise Invalid("expected another", field="$.name")


def app(**how):
    made = App(**how)
    for template in ("/v2/a", "/v2/a/{x}", "/v2/a/{x}:do", "/v2/a/{x}/b", "/v2/a/{x}/b/{y}", "/v2/a.c/{x}"):
        made.add_route(template, Thing(template))
    return made


def ask(method, path, made=None, body=b""):
    async def main():
        request = Request(method, path.encode(), path, {}, Ends(None, None))
        request.body = body
        answer = (made or app())(request)
        return answer if isinstance(answer, Response) else await answer

    return asyncio.run(main())


PATHS = [
    ("/v2/a", b"/v2/a"),
    ("/v2/a/1", b"/v2/a/{x} 1"),
    ("/v2/a/1:do", b"/v2/a/{x}:do 1"),
    ("/v2/a/1/b", b"/v2/a/{x}/b 1"),
    ("/v2/a/1/b/2", b"/v2/a/{x}/b/{y} 1 2"),
    ("/v2/a/1/b/2:other", b"/v2/a/{x}/b/{y} 1 2:other"),
    ("/v2/a.c/1", b"/v2/a.c/{x} 1"),
]


@pytest.mark.parametrize(("path", "expected"), PATHS)
def test_a_path_is_that_of_the_most_exact_template(path, expected):
    assert ask("GET", path).data == expected


@pytest.mark.parametrize(
    "path", ["/v2/a/", "/v2/abc/1", "/v2/a/1/", "/v2/a//b", "/v2/b", "/v2/a/1/b/2/c", "/v2/a/1\n/b/"]
)
def test_what_has_no_route_is_not_there(path):
    assert ask("GET", path).status == 404


def test_a_method_that_is_none_is_refused_with_those_that_are():
    answer = ask("PATCH", "/v2/a")
    assert (answer.status, answer.head) == (405, b"allow: DELETE, GET, HEAD, OPTIONS, POST\r\n")
    assert (
        "PATCH is not a method of /v2/a, which has DELETE, GET, HEAD, OPTIONS, POST alone"
        in json.loads(answer.data)["message"]
    )


def test_what_can_be_read_answers_head_as_it_answers_get_and_all_tell_their_methods():
    assert ask("HEAD", "/v2/a/1").data == ask("GET", "/v2/a/1").data
    answer = ask("OPTIONS", "/v2/a/1")
    assert (answer.status, answer.head) == (204, b"allow: DELETE, GET, HEAD, OPTIONS, POST\r\n")


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_verb_that_no_template_has_is_not_offered_rather_than_a_wrong_method_or_name(method):
    answer = ask(method, "/v2/a/1:other")
    assert (answer.status, answer.head) == (404, b"")


def test_refusals_are_answers_whether_they_come_at_once_or_later():
    assert ask("DELETE", "/v2/a").status == 400
    assert ask("POST", "/v2/a").data == b"posted"
    assert ask("POST", "/v2/a", body=b"x").status == 503


def test_who_is_not_admitted_learns_nothing_and_freshness_comes_first():
    order = []

    async def fresh():
        order.append("fresh")

    def admit(request):
        order.append(request.route)
        raise Invalid("nobody")

    assert ask("PATCH", "/v2/a/1", app(fresh=fresh, admit=admit)).status == 400
    assert order == ["fresh", "/v2/a/{x}"]
