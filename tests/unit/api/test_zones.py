"""Where a caller is told to find the API: as it reached us, unless a trusted proxy or the operator knows better."""

from ipaddress import ip_network

import pytest

from ringfence.api.exchange import Ends, Request
from ringfence.api.zones import Origin

TRUSTED = Origin(trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")))


def request(headers, *, client="10.0.0.9", server=("192.0.2.1", 8443), scheme="http"):
    """A request as a connection hands it over."""
    sent = {name.lower().encode(): value.encode() for name, value in headers.items()}
    return Request("GET", b"/v2/zone", "/v2/zone", sent, Ends((client, 1) if client else None, server, scheme))


FORWARDED = {"X-Forwarded-Host": "sg.example.org", "X-Forwarded-Proto": "https", "Host": "127.0.0.1:8443"}
CASES = [
    (Origin(), {"Host": "h1:8443"}, {}, "http://h1:8443/v2"),
    (Origin(), {"Host": "[::1]:8443"}, {}, "http://[::1]:8443/v2"),
    (Origin(), {"Host": "h1"}, {"scheme": "https"}, "https://h1/v2"),
    (Origin(), FORWARDED, {}, "http://127.0.0.1:8443/v2"),
    (TRUSTED, FORWARDED, {}, "https://sg.example.org/v2"),
    (TRUSTED, FORWARDED, {"client": "fd00::1"}, "https://sg.example.org/v2"),
    (TRUSTED, FORWARDED, {"client": "192.0.2.7"}, "http://127.0.0.1:8443/v2"),
    (TRUSTED, FORWARDED, {"client": None}, "http://127.0.0.1:8443/v2"),
    (TRUSTED, {**FORWARDED, "X-Forwarded-Host": "a.example, b.example"}, {}, "https://a.example/v2"),
    (TRUSTED, {**FORWARDED, "X-Forwarded-Proto": "gopher"}, {}, "http://sg.example.org/v2"),
    (TRUSTED, {**FORWARDED, "X-Forwarded-Host": "a/../b"}, {}, "https://127.0.0.1:8443/v2"),
    (Origin(public_url="https://sg.example.org"), FORWARDED, {}, "https://sg.example.org/v2"),
    (Origin(public_url="https://sg.example.org/v2/"), FORWARDED, {}, "https://sg.example.org/v2"),
    (Origin(), {"Host": '"><script>'}, {}, "http://192.0.2.1:8443/v2"),
    (Origin(), {}, {}, "http://192.0.2.1:8443/v2"),
    (Origin(), {}, {"server": ("::1", 80)}, "http://[::1]:80/v2"),
    (Origin(), {}, {"server": None}, "http://localhost/v2"),
]


@pytest.mark.parametrize(("origin", "headers", "more", "expected"), CASES)
def test_the_endpoint_is_where_this_caller_can_reach_us(origin, headers, more, expected):
    assert origin.endpoint(request(headers, **more)) == expected
