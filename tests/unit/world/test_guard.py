"""The guard's answer to what a client asks for: where to, or why not."""

import pytest

from ringfence.world.guard import Refusal, parse_target


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("registry.terraform.io:443", ("registry.terraform.io", 443)),
        ("notexoscale.com:443", ("notexoscale.com", 443)),
        ("exoscale.com.example.net:443", ("exoscale.com.example.net", 443)),
        ("[::1]:8443", ("::1", 8443)),
    ],
)
def test_everything_but_the_real_cloud_is_let_through(asked, target):
    assert parse_target(f"CONNECT {asked} HTTP/1.1\r\nHost: {asked}\r\n\r\n".encode()) == target


@pytest.mark.parametrize(
    "host",
    [
        "api-ch-gva-2.exoscale.com",
        "API-CH-DK-2.EXOSCALE.COM",
        "api.exoscale.com.",
        "exoscale.com",
        "sos-de-fra-1.exo.io",
    ],
)
def test_the_real_cloud_is_refused_by_name(host):
    with pytest.raises(Refusal, match="is the real cloud, which would bill you") as refused:
        parse_target(f"CONNECT {host}:443 HTTP/1.1\r\n\r\n".encode())
    assert refused.value.status == 403
    assert host.lower().rstrip(".") in refused.value.reason


@pytest.mark.parametrize(
    "head", [b"GET http://example.net/ HTTP/1.1\r\n\r\n", b"CONNECT example.net HTTP/1.1\r\n\r\n", b"\r\n\r\n"]
)
def test_what_is_no_https_is_refused(head):
    with pytest.raises(Refusal) as refused:
        parse_target(head)
    assert refused.value.status == 405
