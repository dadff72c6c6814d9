"""A change that would cut the caller, or an agent from this server, at a host that is its own instance."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network
from uuid import uuid4

import httpx
import pytest

from desk import H1, H2, instance, tcp
from ringfence.api import build_admin_app, build_app
from ringfence.api.direct import Direct
from ringfence.api.exchange import Ends
from ringfence.api.operator import SESSION_HEADER
from ringfence.control.actor import Role, operator_of
from ringfence.control.commits import Foreign, Outcome
from ringfence.control.keys import KeyWish
from ringfence.control.safety import USUAL, Safety
from ringfence.policy.commands import (
    AddRule,
    Attach,
    ClaimInstances,
    CreateGroup,
    DeleteRule,
    Detach,
    Edit,
    Observe,
)
from ringfence.policy.errors import Conflict
from ringfence.policy.local import Failsafe
from ringfence.policy.lockout import parse_connection
from ringfence.policy.values import Direction, Kind, Protocol
from ringfence.store import HostSaid, HostsSeen, Store
from ringfence.wire.feed import Report
from ringfence.wire.signature import SignedRequest, sign_request
from unit.control.test_plane import PlayedClock, opened, played

SERVER, ADMIN, AGENT = "10.0.0.1", "198.51.100.7", "10.0.0.2"
SESSION = parse_connection("your session", (ADMIN, 50000), (SERVER, 22))


def operator(plane, connection=SESSION):
    return operator_of(plane.owners.first.id, "request-1", connection)


async def do(plane, *commands, actor=None, safety=USUAL):
    edits = [Edit(command, uuid4()) for command in commands]
    await plane.change(edits, actor or operator(plane), action="Change", safety=safety)
    return [edit.new_id for edit in edits]


async def guarded(plane, kind=Kind.SELF):
    """The server's own machine h1, enforced, with ssh open to the admin and the API to the agents' network."""
    await plane.enrolment.add_host(H1, bytes(32))
    claim = instance("server", SERVER, interface="eth0", kind=kind)
    vm = (await plane.claim(H1, ClaimInstances((claim,)))).accepted[0][1]
    [group] = await do(plane, CreateGroup("server"))
    ssh, api, *_ = await do(
        plane,
        AddRule(group, tcp("198.51.100.0/24", 22)),
        AddRule(group, tcp("10.0.0.0/24", 8443)),
        Attach(group, vm),
        Observe((vm,), observe=False),
    )
    return vm, group, ssh, api


@played
async def test_who_would_cut_their_own_session_is_refused_and_told_how(tmp_path):
    async with opened(tmp_path) as plane:
        vm, group, ssh, _ = await guarded(plane)
        before = plane.snapshot.revision
        for commands in (
            (DeleteRule(group, ssh),),
            (Detach(group, vm),),
            (AddRule(group, tcp("203.0.113.0/24", 22)), DeleteRule(group, ssh)),
        ):
            with pytest.raises(
                Conflict, match=r"your session from 198.51.100.7 to 10.0.0.1 tcp/22 would be cut at serv"
            ):
                await do(plane, *commands)
        assert plane.snapshot.revision == before
        await do(plane, AddRule(group, tcp("198.51.100.7/32", 22)), DeleteRule(group, ssh))  # still open to the admin
        await do(plane, Detach(group, vm), safety=Safety(force=True))
        assert group not in plane.snapshot.instances[vm].groups


@played
async def test_enforcing_a_host_that_would_drop_the_session_is_refused(tmp_path):
    async with opened(tmp_path) as plane:
        vm, group, ssh, _ = await guarded(plane)
        await do(plane, Observe((vm,), observe=True))
        await do(plane, DeleteRule(group, ssh))  # nothing of it is dropped yet
        with pytest.raises(Conflict, match="your session"):
            await plane.execute(Observe((vm,), observe=False), operator(plane))
        await plane.execute(Observe((vm,), observe=False), operator(plane), safety=Safety(force=True))


@played
async def test_an_agents_channel_to_this_machine_is_kept(tmp_path):
    async with opened(tmp_path) as plane:
        _, group, ssh, api = await guarded(plane)
        await plane.enrolment.add_host(H2, bytes([2] * 32))
        channel = parse_connection("the channel of the agent of h2", (AGENT, 40000), (SERVER, 8443))
        follower = plane.feed.follow(H2, None, send=lambda _: None, end=lambda: None, channel=channel)
        nobody = operator(plane, None)
        with pytest.raises(Conflict, match=r"the channel of the agent of h2 from 10.0.0.2 to 10.0.0.1 tcp/8443"):
            await do(plane, DeleteRule(group, api), actor=nobody)
        await do(plane, DeleteRule(group, ssh), actor=nobody)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "is_shared", True)
            plane.report(H2, Report(None, None), offered=0)
        assert [seen.said.channel for seen in plane._telling.take(0.0) if H2 in seen.hosts] == [
            channel
        ]  # so other servers know
        plane.feed.forget(follower)
        await do(plane, DeleteRule(group, api), actor=nobody)


def tell_failsafe(plane, *ports):
    plane.report(H1, Report(None, None, failsafe=ports), offered=plane.feed.wanted(H1).revision)


@played
async def test_what_a_failsafe_port_keeps_open_is_not_guarded_and_a_refusal_names_the_others(tmp_path):
    async with opened(tmp_path) as plane:
        _, group, ssh, _ = await guarded(plane)
        with pytest.raises(Conflict, match="the failsafe ports of host h1 are not known here: its agent has not told"):
            await do(plane, DeleteRule(group, ssh))
        tell_failsafe(plane)
        with pytest.raises(Conflict, match=r"not by a failsafe port of host h1 \(it has none\)"):
            await do(plane, DeleteRule(group, ssh))
        tell_failsafe(plane, Failsafe(Protocol.TCP, 22, (ip_network("203.0.113.0/24"),)))
        with pytest.raises(Conflict, match=r"not by a failsafe port of host h1 \(tcp/22 from 203.0.113.0/24\)"):
            await do(plane, DeleteRule(group, ssh))
        tell_failsafe(plane, Failsafe(Protocol.TCP, 22, (ip_network("198.51.100.7/32"),)))
        await do(plane, DeleteRule(group, ssh))


@played
async def test_an_agents_own_way_out_to_its_server_is_not_guarded(tmp_path):
    """Its host lets it out whatever the groups say; another program's connection of the same ends is."""
    async with opened(tmp_path) as plane:
        _, group, _, _ = await guarded(plane)
        channel = parse_connection("the channel", (SERVER, 40000), (AGENT, 8443), agent=H1)
        out = AddRule(group, replace(tcp("192.0.2.0/24", 53), direction=Direction.EGRESS))
        with pytest.raises(Conflict, match=r"your session from 10.0.0.1 to 10.0.0.2 tcp/8443 would be cut at server"):
            await do(plane, out, actor=operator(plane, replace(channel, whose="your session", agent=None)))
        await do(plane, out, actor=operator(plane, channel))


@played
async def test_a_dry_run_says_what_the_guard_would_refuse(tmp_path):
    async with opened(tmp_path) as plane:
        vm, group, ssh, _ = await guarded(plane)
        worn = plane.snapshot.revision
        [away, back] = [
            await plane.preview([Edit(command, uuid4())], operator(plane))
            for command in (DeleteRule(group, ssh), AddRule(group, tcp("203.0.113.0/24", 22)))
        ]
        [cut] = away.cuts
        assert cut.text.startswith("your session from 198.51.100.7 to 10.0.0.1 tcp/22 would be cut at server: no rule")
        assert not back.cuts
        await do(plane, Detach(group, vm), safety=Safety(force=True))
        gone = plane.snapshot.revision
        await plane.rollback(worn, operator(plane))
        preview = await plane.preview_rollback(gone, operator(plane))
        assert ([cut.host for cut in preview.cuts], len(preview.would)) == ([H1], 1)


@played
async def test_an_agents_channel_to_another_server_is_kept_as_long_as_that_server_tells_of_it(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        _, group, _, api = await guarded(plane)
        await plane.enrolment.add_host(H2, bytes([2] * 32))
        channel = parse_connection("the channel of the agent of h2", (AGENT, 40000), (SERVER, 8443), agent=H2)

        def told(channel):
            seen = HostsSeen((H2,), 0.0, HostSaid(channel=channel))
            plane._publish(Outcome(None, foreign=Foreign((), None, (seen,))))

        async def is_kept():
            preview = await plane.preview([Edit(DeleteRule(group, api), uuid4())], operator(plane, None))
            return [cut.connection.whose for cut in preview.cuts] == [f"{channel.whose} to another server"]

        told(channel)
        assert await is_kept()
        told(None)
        assert not await is_kept()
        told(channel)
        plane.report(H2, Report(None, None), offered=0)  # it came here
        assert not await is_kept()
        told(channel)
        clock.moment_s += plane.settings.live_s
        assert not await is_kept()


@played
async def test_what_is_cut_already_or_is_no_host_hinders_nobody(tmp_path):
    async with opened(tmp_path) as plane:
        _, group, ssh, api = await guarded(plane)
        stranger = operator(plane, parse_connection("your session", ("192.0.2.1", 50000), (SERVER, 22)))
        await do(plane, DeleteRule(group, ssh), DeleteRule(group, api), actor=stranger)


@played
async def test_a_session_at_an_instance_that_is_no_host_is_not_guarded(tmp_path):
    async with opened(tmp_path) as plane:
        _, group, ssh, _ = await guarded(plane, Kind.ROUTED)
        await do(plane, DeleteRule(group, ssh))


@played
async def test_time_asks_nobody(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        _, group, ssh, _ = await guarded(plane)
        await do(plane, AddRule(group, tcp("198.51.100.7/32", 22), 60), DeleteRule(group, ssh))
        clock.moment_s += 60
        await plane._deadlines.meet()
        assert len(plane.snapshot.groups[group].rules) == 1


@pytest.mark.parametrize(
    "ends",
    [
        (None, None),
        ("", "/run/rf.sock"),
        (("127.0.0.1", 1), None),
        (("x", 1), ("10.0.0.1", 22)),
        (("10.0.0.1",) * 2,) * 2,
    ],
)
def test_what_is_no_tcp_connection_is_none(ends):
    assert parse_connection("it", *ends) is None


def test_mapped_and_scoped_addresses_are_what_they_stand_for():
    found = parse_connection("it", ("::ffff:192.0.2.1", 1, 0, 0), ("fe80::1%eth0", 2, 0, 3))
    assert (found.client, found.server) == (ip_address("192.0.2.1"), ip_address("fe80::1"))


def caller(app, address=ADMIN):
    """A client of ``app`` at that address, as if the app listened at the server's."""
    transport = Direct(app, Ends((address, 50000), (SERVER, 8443)))
    return httpx.AsyncClient(transport=transport, base_url=f"http://{SERVER}:8443")


@played
async def test_an_official_call_may_not_cut_its_own_connection(tmp_path):
    async with opened(tmp_path) as plane:
        _, group, ssh, api = await guarded(plane)
        key = await plane.owners.create_key(KeyWish("ci", Role.OWNER, ()), None)

        async def delete(address, rule):
            path = f"/v2/security-group/{group}/rules/{rule}"
            signed = sign_request(
                key.id, key.secret, SignedRequest("DELETE", path.encode(), b""), int(time.time()) + 600
            )
            async with caller(build_app(plane), address) as client:
                return await client.delete(path, headers={"Authorization": signed})

        refused = await delete("10.0.0.9", api)
        assert (refused.status_code, "this very connection" in refused.json()["message"]) == (409, True)
        assert (await delete("10.0.0.9", ssh)).status_code == 200
        assert (await delete("203.0.113.1", api)).status_code == 200  # it comes by another way, that is not cut


@played
async def test_the_operators_session_is_told_by_a_header_and_may_force(tmp_path):
    async with opened(tmp_path) as plane:
        vm, group, ssh, _ = await guarded(plane)
        asked = {"edits": [{"edit": "delete-rule", "group": str(group), "rule": str(ssh)}]}
        header = {SESSION_HEADER: f"{ADMIN} 50000 {SERVER} 22"}
        async with caller(build_admin_app(plane)) as client:
            refused = await client.post("/admin/v1/change", json=asked, headers=header)
            assert (refused.status_code, "your session" in refused.json()["message"]) == (409, True)
            forced = await client.post("/admin/v1/change", json={**asked, "force": True}, headers=header)
            assert forced.status_code == 200
            back = {"revision": plane.snapshot.revision}
            await do(plane, AddRule(group, tcp("198.51.100.0/24", 22)))
            assert (await client.post("/admin/v1/rollback", json=back, headers=header)).status_code == 409
            assert (
                await client.post("/admin/v1/rollback", json={**back, "force": True}, headers=header)
            ).status_code == 200
            plain = await client.put(f"/admin/v1/instances/{vm}", json={"observe": True}, headers={SESSION_HEADER: "x"})
            assert plain.status_code == 200
            mode = {"observe": False}
            assert (await client.put(f"/admin/v1/instances/{vm}", json=mode, headers=header)).status_code == 409
            forced = await client.put(f"/admin/v1/instances/{vm}", json={**mode, "force": True}, headers=header)
            assert forced.status_code == 200


def test_a_session_is_found_in_the_process_that_began_it_when_sudo_took_it_away():
    program = "from ringfence.cli.session import ssh_session; print(ssh_session())"
    script = f"unset SSH_CONNECTION; '{sys.executable}' -c '{program}'; true"
    environment = {**os.environ, "SSH_CONNECTION": "198.51.100.7 50000 10.0.0.1 22"}
    said = subprocess.run(["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=True)  # noqa: S603  our own
    assert said.stdout == "198.51.100.7 50000 10.0.0.1 22\n"
