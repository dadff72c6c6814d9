"""Calls an app without a connection: for the command line where no server runs, and for tests.

Input: an app. Output: what an HTTP client of httpx sends its requests by.
"""

import httpx

from ringfence.api.exchange import Ends, HttpApp, Request, Response

_NOWHERE = Ends(None, None)


class Direct(httpx.AsyncBaseTransport):
    """Calls ``app`` in this process; ``ends``: those of the connection that there would be."""

    def __init__(self, app: HttpApp, ends: Ends = _NOWHERE) -> None:
        self._app = app
        self._ends = ends

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name.lower(): value for name, value in request.headers.raw}
        asked = Request(request.method, request.url.raw_path, request.url.path, headers, self._ends)
        asked.body = await request.aread()
        answer = self._app(asked)
        response = answer if isinstance(answer, Response) else await answer
        lines = [line.partition(b": ") for line in response.head.split(b"\r\n") if line]
        told = [(b"content-type", response.content_type.encode()), *((name, value) for name, _, value in lines)]
        return httpx.Response(response.status, headers=told, content=response.data)
