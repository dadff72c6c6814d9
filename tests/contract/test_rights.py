"""Who may do what: every route with every method, asked by everybody that there is, over a real server."""

import json
import time
from base64 import b64decode
from http.client import HTTPConnection
from itertools import count

import pytest

from contract.conftest import VM_A, furnish
from contract.running import running_server
from ringfence.api.admin import build_admin_app
from ringfence.api.app import build_app
from ringfence.policy.commands import ClaimInstances
from ringfence.policy.values import HostName
from ringfence.wire.counters import encode_counts
from ringfence.wire.encode import INSTANCE_TYPE_ID, TEMPLATE_ID
from ringfence.wire.feed import encode_claim
from ringfence.wire.flows import FlowReport, encode_flow_report
from ringfence.wire.hostauth import sign_request as sign_as_host
from ringfence.wire.signature import SignedRequest, sign_request

# A key of each role; one limited to the group that is asked for, and one to another; one of another organisation; a
# host, somebody without a signature, and a key that was revoked.
CALLERS = ("owner", "operator", "reader", "scoped", "elsewhere", "other", "host", "nobody", "revoked")
OPEN = (200, 200, 200, 200, 200, 200, 200, 200, 200)
READ = (200, 200, 200, 200, 200, 404, 403, 403, 403)
LIST = (200, 200, 200, 200, 200, 200, 403, 403, 403)
HISTORY = (200, 403, 403, 403, 403, 200, 403, 403, 403)
MAKE = (200, 200, 403, 403, 403, 200, 403, 403, 403)
CHANGE = (200, 200, 403, 200, 403, 404, 403, 403, 403)
UNSCOPED = (200, 200, 403, 200, 200, 404, 403, 403, 403)
NONE = (404, 404, 404, 404, 404, 404, 403, 403, 403)
AGENT = (401, 401, 401, 401, 401, 401, 204, 401, 401)

GROUP = "/v2/security-group/{group}"
RULE = '{"flow-direction":"ingress","protocol":"esp","network":"198.51.100.0/24"}'
SOURCE = '{"cidr":"203.0.113.0/24"}'
WORN = '{"instance":{"id":"{instance}"}}'
ALLOWED = '{"target":"{name}","service":"tcp/22","address":"192.0.2.9","expires-s":60}'
INVENTORY = encode_claim(ClaimInstances(())).decode()
RIGHTS = {
    ("GET", "/v2/zone"): (OPEN, ""),
    ("GET", "/v2/security-group"): (LIST, ""),
    ("POST", "/v2/security-group"): (MAKE, '{"name":"new-{n}"}'),
    ("GET", GROUP): (READ, ""),
    ("DELETE", GROUP): (CHANGE, ""),
    ("POST", f"{GROUP}/rules"): (CHANGE, RULE),
    ("DELETE", f"{GROUP}/rules/{{rule}}"): (CHANGE, ""),
    ("PUT", f"{GROUP}:add-source"): (CHANGE, SOURCE),
    ("PUT", f"{GROUP}:remove-source"): (CHANGE, SOURCE),
    ("PUT", f"{GROUP}:attach"): (CHANGE, WORN),
    ("PUT", f"{GROUP}:detach"): (CHANGE, WORN),
    ("GET", "/v2/instance"): (LIST, ""),
    ("GET", "/v2/instance/{instance}"): (READ, ""),
    ("PUT", "/v2/instance/{instance}:remove-protection"): (UNSCOPED, ""),
    ("GET", "/v2/operation/{operation}"): (READ, ""),
    ("GET", "/v2/instance-type"): (LIST, ""),
    ("GET", "/v2/instance-type/{entry}"): (LIST, ""),
    ("GET", "/v2/template"): (LIST, ""),
    ("GET", "/v2/template/{entry}"): (LIST, ""),
    ("GET", "/v2/reverse-dns/instance/{instance}"): (NONE, ""),
    ("DELETE", "/v2/reverse-dns/instance/{instance}"): (NONE, ""),
    ("GET", "/v2/quota"): (LIST, ""),
    ("GET", "/v2/quota/{resource}"): (LIST, ""),
    ("GET", "/v2/event"): (HISTORY, ""),
    ("POST", "/admin/v1/allow"): (CHANGE, ALLOWED),
    ("PUT", "/agent/v1/inventory"): (AGENT, INVENTORY),
    ("POST", "/agent/v1/counters"): (AGENT, encode_counts([]).decode()),
    ("POST", "/agent/v1/flows"): (AGENT, encode_flow_report(FlowReport((), 0)).decode()),
    ("GET", "/agent/v1/feed"): (AGENT, ""),
    ("GET", "/agent/v1/join"): (OPEN, ""),
    ("POST", "/agent/v1/join"): (OPEN, ""),
}
OTHERWISE = {  # where what is right is answered in another way than by the plain success
    ("PUT", "/agent/v1/inventory"): {204: 200},
    ("GET", "/agent/v1/feed"): {204: 426},  # it did not ask for the upgrade
    ("GET", "/agent/v1/join"): {200: 404},  # this server has no certificate
    ("POST", "/agent/v1/join"): {200: 400},  # it has no token
}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


def routes_of(app):
    """The methods that each path of an app has, apart from HEAD and OPTIONS, which all have that have GET, or any."""
    nodes, found = [app.app._routes._root], {}
    while nodes:
        node = nodes.pop()
        nodes += [*node.words.values(), *node.verbs.values(), *([node.place] if node.place else [])]
        if node.route is not None:
            found[node.route.template] = set(node.route.responders) - {"HEAD", "OPTIONS"}
    return found


class _Plane:
    """What apps ask of a plane before there is a request."""

    is_shared = False
    settings = type("Settings", (), {"zone": "z"})


PUBLIC, OPERATORS = routes_of(build_app(_Plane)), routes_of(build_admin_app(_Plane))
LEFT = [(method, path) for path, has in PUBLIC.items() for method in METHODS if method not in has]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("data")) as server:
        furnish(server)
        yield World(server)


class World:
    """A server with one of each caller."""

    def __init__(self, server):
        self.admin = server.admin
        self._connection = HTTPConnection(*server.address, timeout=10)
        self.numbers = count()
        self.admin.post("/admin/v1/organisations", json={"name": "theirs"}).raise_for_status()
        self._keys = {role: self._key(role=role) for role in ("owner", "operator", "reader")}
        self._keys["other"] = self._key("?organisation=theirs")
        self._keys["elsewhere"] = self._key(role="operator", groups=["default"])
        self._keys["revoked"] = self._key()
        self.admin.delete(f"/admin/v1/keys/{self._keys['revoked']['id']}").raise_for_status()
        self._private_key = b64decode(self.admin.post("/admin/v1/hosts", json={"name": "h1"}).json()["private-key"])
        self.renew_group()

    def renew_group(self):
        """Makes a group, with a rule and a source, and a key that is limited to it. ``places``: what paths name."""
        name = f"group-{next(self.numbers)}"
        made = json.loads(self.ask("owner", "POST", "/v2/security-group", json.dumps({"name": name}))[1])
        group = made["reference"]["id"]
        rule = RULE.replace("esp", "gre")
        for method, path, body in (("POST", "/rules", rule), ("PUT", ":add-source", SOURCE)):
            assert self.ask("owner", method, f"/v2/security-group/{group}{path}", body)[0] == 200
        shown = json.loads(self.ask("owner", "GET", f"/v2/security-group/{group}")[1])
        self._keys["scoped"] = self._key(role="operator", groups=[name])
        self.places = {
            "{name}": name,
            "{group}": group,
            "{rule}": shown["rules"][0]["id"],
            "{instance}": VM_A,
            "{operation}": made["id"],
            "{resource}": "security-group",
        }

    def ask(self, caller, method, target, body=""):
        """Status and body of the answer."""
        content, expires = body.encode(), int(time.time()) + 60
        headers = {}
        if caller == "host":
            signed = sign_as_host(self._private_key, HostName("h1"), method, target, content, expires)
            headers["Authorization"] = signed
        elif caller != "nobody":
            key = self._keys[caller]
            signed = sign_request(key["id"], key["secret"], SignedRequest(method, target.encode(), content), expires)
            headers["Authorization"] = signed
        self._connection.request(method, target, body=content or None, headers=headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def _key(self, query="", **wanted):
        return self.admin.post(f"/admin/v1/keys{query}", json=wanted).raise_for_status().json()


def filled(text, places):
    entry = TEMPLATE_ID if "/template/" in text else INSTANCE_TYPE_ID
    for name, value in {**places, "{entry}": str(entry)}.items():
        text = text.replace(name, value)
    return text


def everybody(world, method, path, body="", *, afresh=False):
    """The status that each caller gets."""
    found = []
    for caller in CALLERS:
        if afresh:
            world.renew_group()
        places = {**world.places, "{n}": str(next(world.numbers))}
        found.append(world.ask(caller, method, filled(path, places), filled(body, places))[0])
    return tuple(found)


def test_the_table_has_every_route_and_method():
    assert set(RIGHTS) == {(method, path) for path, has in PUBLIC.items() for method in has}


@pytest.mark.parametrize(("method", "path"), RIGHTS)
def test_everybody_may_do_what_the_table_says_and_no_more(world, method, path):
    rights, body = RIGHTS[method, path]
    instead = OTHERWISE.get((method, path), {})
    expected = tuple(instead.get(status, status) for status in rights)
    removes = method == "DELETE" or path.endswith(":remove-source")
    assert everybody(world, method, path, body, afresh=removes) == expected
    if method == "GET":
        assert everybody(world, "HEAD", path) == expected


@pytest.mark.parametrize(("method", "path"), LEFT)
def test_what_a_path_has_no_method_for_is_told_to_who_may_ask_there(world, method, path):
    if method == "HEAD" and "GET" in PUBLIC[path]:
        return  # with GET
    is_told = {"OPTIONS": 204}.get(method, 405)
    if path.startswith("/agent/") and path != "/agent/v1/join":
        expected = (401, 401, 401, 401, 401, 401, is_told, 401, 401)
    elif method == "OPTIONS" and path in {"/v2/zone", "/agent/v1/join"}:
        expected = (204,) * 9
    else:
        expected = (is_told,) * 6 + (403,) * 3
    assert everybody(world, method, path) == expected


@pytest.mark.parametrize("path", sorted(OPERATORS.keys() - PUBLIC.keys()))
def test_what_is_the_operators_is_nobodys_on_public_listeners(world, path):
    shown = path.replace("{host}", "h1").replace("{instance}", VM_A).replace("{name}", "theirs")
    for method in (*OPERATORS[path], "OPTIONS"):
        assert everybody(world, method, shown) == (404,) * 9
