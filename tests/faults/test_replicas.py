"""kill -9 of either of two servers on one PostgreSQL, under writers through both: nothing is lost and all go on."""

import asyncio
import json
import random
import shutil
import socket
import threading
import time
from base64 import b64decode
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from itertools import count as numbers

import pytest

from contract.test_agent_protocol import INVENTORY, claim_of, send
from contract.test_server_process import server_process
from counts import count
from places import postgres_place
from ringfence.agent.client import open_server
from ringfence.agent.credential import HostCredential
from ringfence.agent.doors.clock import SystemClock
from ringfence.policy.errors import OperatorError
from ringfence.policy.values import HostName
from ringfence.wire.feed import FeedView, Report, encode_claim
from waiting import wait_until

HOST = HostName("h1")
NAME, PORT, ADDRESSES = "servers.test", 8443, ("127.0.0.1", "127.0.0.2")  # one name for both servers
WRITERS = 8
ROUNDS = count(reduced=1, stated=20)
TRIALS = count(reduced=3, stated=10)


class Replica:
    """One of the servers, through all its lives."""

    def __init__(self, folder, url, address):
        self.folder = folder
        self.options = ("--database", url, "--rate-limit", "0", "--listen", f"{address}:{PORT}")
        self.start()

    def start(self):
        self.life = ExitStack()
        self.process, self.server = self.life.enter_context(server_process(self.folder, *self.options))

    def kill(self):
        self.life.close()

    @property
    def host(self):
        """What it says of the host."""
        (found,) = self.server.admin.get("/admin/v1/hosts").json()["hosts"]
        return found


class Writers:
    """Callers who go to the other server after each call, and there with the same name when a call broke."""

    def __init__(self, replicas, key):
        self.replicas, self.key = replicas, key
        self.acknowledged, self.failures = set(), []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(n,)) for n in range(WRITERS)]

    def write(self, writer):
        turns = numbers(writer)
        for number in numbers():
            name, may_be_there = f"{writer}-{number}", False
            while not self.stopping.is_set():
                server = self.replicas[next(turns) % 2].server
                server.key, server.secret = self.key
                try:
                    status = server.call("POST", "/security-group", json.dumps({"name": name}).encode()).status
                except (OSError, HTTPException):  # the server was killed: this call may have been made
                    may_be_there = True
                    continue
                if status != 200 and not (status == 409 and may_be_there):
                    self.failures.append((name, status))
                self.acknowledged.add(name)
                break
            if self.stopping.is_set():
                return

    def wait_more(self, more):
        wanted = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged) >= wanted, 30)


@contextmanager
def running(threads, stop):
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop()
        for thread in threads:
            thread.join(30)


class Follower:
    """The agent's own client, with one URL for both servers: applies all it hears of, and tells."""

    def __init__(self, private_key):
        self.credential = HostCredential(HOST, private_key)
        self.revisions = []
        self.loop = asyncio.new_event_loop()
        self.task = self.loop.create_task(self.follow())
        self.thread = threading.Thread(target=self.run)

    def run(self):
        with suppress(asyncio.CancelledError):
            self.loop.run_until_complete(self.task)
        self.loop.close()

    def stop(self):
        self.loop.call_soon_threadsafe(self.task.cancel)

    async def follow(self):
        async with open_server(f"http://{NAME}:{PORT}", self.credential, SystemClock(), insecure=True) as server:
            while True:
                with suppress(OperatorError):
                    async for found in server.feed():
                        if isinstance(found, FeedView):
                            self.revisions.append(found.view.revision)
                            await server.report(Report(found.view.revision, None))
                await asyncio.sleep(0.05)


@pytest.fixture
def pair(postgres, tmp_path):
    """Two servers, and the URL of their database."""
    url = postgres.database()
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        (folder / "data").mkdir(parents=True, mode=0o700)
    with ExitStack() as stack:
        first = Replica(folders[0], url, ADDRESSES[0])
        stack.callback(first.kill)
        shutil.copy(folders[0] / "data" / "secret.key", folders[1] / "data")
        second = Replica(folders[1], url, ADDRESSES[1])
        stack.callback(second.kill)
        yield (first, second), url


@pytest.fixture
def named(monkeypatch):
    """A resolver that knows the servers' name: /etc/hosts is the machine's."""
    ask = socket.getaddrinfo

    def answer(host, *rest, **more):
        names = ADDRESSES if host in {NAME, NAME.encode()} else (host,)
        return [found for name in names for found in ask(name, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_either_of_two_servers_may_be_killed_under_load(pair, tmp_path, named):
    del named
    replicas, url = pair
    server = replicas[0].server
    key = (server.key, server.secret)
    server.admin.put("/admin/v1/organisations/default/quota", json={"security-group": -1}).raise_for_status()
    private_key = b64decode(server.admin.post("/admin/v1/hosts", json={"name": HOST}).json()["private-key"])
    assert send(server, private_key, "PUT", INVENTORY, encode_claim(claim_of("web")), host=HOST).status_code == 200
    writers, follower, chance = Writers(replicas, key), Follower(private_key), random.Random(5)
    with running(writers.threads, writers.stopping.set), running([follower.thread], follower.stop):
        for number in range(1, ROUNDS + 1):
            writers.wait_more(chance.randrange(10, 60))
            victim = (number + 1) % 2  # to which the agent is connected: it took the first address first
            replicas[victim].kill()
            survivor = replicas[1 - victim]
            wanted = open_port(survivor.server, key, number)
            wait_until(lambda s=survivor, w=wanted: (s.host["applied"] or 0) >= w, 30)
            writers.wait_more(10)
            replicas[victim].start()
    assert writers.failures == []
    for replica in replicas:
        replica.server.key, replica.server.secret = key
        shown = replica.server.call("GET", "/security-group").json["security-groups"]
        assert {group["name"] for group in shown} >= {"default", *writers.acknowledged}
    assert follower.revisions == sorted(follower.revisions)  # one that comes back is sent the newest, known or not
    ((revisions, newest),) = postgres_place(tmp_path, url).rows("SELECT count(*), max(number) FROM revision")
    assert revisions == newest


def open_port(server, key, port):
    """A rule for the group that the host's instance wears; the revision that the host is to apply."""
    server.key, server.secret = key
    before = server.admin.get("/admin/v1/hosts").json()["hosts"][0]["wanted"]
    edit = {"edit": "add-rule", "group": "default", "service": f"tcp/{port}", "from": "10.0.0.0/8"}
    server.admin.post("/admin/v1/change", json={"edits": [edit]}).raise_for_status()
    wanted = server.admin.get("/admin/v1/hosts").json()["hosts"][0]["wanted"]
    assert wanted > before
    return wanted


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_trial_is_undone_once_whichever_server_takes_it_and_whenever_it_is_killed(pair):
    """At the trial's end both serve; soon after it one is killed, in the middle of undoing it or not."""
    replicas, _ = pair
    edits = [{"edit": "create-group", "name": "web"}, {"edit": "add-source", "group": "web", "source": "192.0.2.0/24"}]
    edits += [{"edit": "add-rule", "group": "web", "service": f"tcp/{port}", "from": "web"} for port in range(1, 200)]
    replicas[0].server.admin.post("/admin/v1/change", json={"edits": edits}).raise_for_status()
    before = policy_of(replicas[1].server)
    changing = [{"edit": "delete-rule", "group": "web", "rule": rule} for rule in before[1]]
    changing += [{"edit": "remove-source", "group": "web", "source": "192.0.2.0/24"}]
    chance = random.Random(6)
    for number in range(1, TRIALS + 1):
        asked, victim = replicas[number % 2], replicas[chance.randrange(2)]
        tried = asked.server.admin.post("/admin/v1/change", json={"edits": changing, "confirm-s": 1})
        tried.raise_for_status()
        ends_at = tried.json()["trial"]["ends-at"] + chance.uniform(0, 0.6)  # servers look every half second
        wait_until(lambda end=ends_at: time.time() > end, 10)
        victim.kill()
        survivor = replicas[1 - replicas.index(victim)].server
        wait_until(lambda s=survivor: s.admin.get("/admin/v1/trials").json() == {"trials": []}, 30)
        assert policy_of(survivor) == before
        victim.start()
        for replica in replicas:
            lines = replica.server.admin.get("/admin/v1/history").json()["lines"]
            assert [line["action"] for line in lines].count("ChangeUndone") == number
            assert replica.server.admin.get("/admin/v1/history/check").json()["broken"] is None


def policy_of(server):
    """The policy as a file, and the ids of its rules: the order in a group is no part of it."""
    rules = server.admin.get("/admin/v1/rules").json()["rules"]
    return server.admin.get("/admin/v1/export").json(), sorted(rule["rule"] for rule in rules)
