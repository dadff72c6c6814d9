"""TLS beyond loopback by the own CA: the official SDK, hosts that join by a token, new certificates at work."""

import asyncio
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from contextlib import aclosing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit

import pytest
from exoscale.api.v2 import Client

from contract.running import admin_client
from ringfence.agent.client import open_server
from ringfence.agent.credential import load_credential
from ringfence.agent.doctor import State
from ringfence.agent.doctor_server import examine_server
from ringfence.agent.doors.clock import SystemClock
from ringfence.agent.doors.server import ask_server
from ringfence.agent.join import join_server
from ringfence.api.authority import RENEWED_BEFORE_END, SERVER_LIFE, authority_of
from ringfence.cli.app import run
from ringfence.policy.errors import OperatorError
from ringfence.wire.feed import Report
from ringfence.wire.hostauth import sign_request
from ringfence.wire.join import fingerprint_of, parse_token
from waiting import wait_until

PROGRAM = (sys.executable, "-m", "ringfence")
READY = "ringfence server ready: "


@contextmanager
def serving(folder, *more):
    """A server process; the URL of the loopback listener and of the one beyond."""
    with started(folder, "--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0", *more) as (plain, tls):
        yield plain.removesuffix("/v2"), tls.removesuffix("/v2").replace("0.0.0.0", "127.0.0.1")  # noqa: S104  as said


@contextmanager
def started(folder, *arguments):
    """A server process, and the URLs that it says it is ready at."""
    command = (*PROGRAM, "server", "--data", str(folder), *arguments)
    with (folder.parent / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)  # noqa: S603  our own
    try:
        line = process.stdout.readline()
        assert line.startswith(READY), (folder.parent / "log").read_text()
        yield line.removeprefix(READY).split()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        process.stdout.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls") / "data"
    authority_of(folder).make(["127.0.0.1", "rf.example"], datetime.now(UTC))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder) as urls:
        yield urls


@pytest.fixture
def admin(folder, server):  # noqa: ARG001  it only has to run
    with admin_client(folder) as client:
        yield client


def token_of(admin, host, ttl_s=60):
    return admin.post(f"/admin/v1/hosts/{host}/token", json={"ttl-s": ttl_s}).raise_for_status().json()["token"]


def join(url, token, folder):
    command = (*PROGRAM, "agent", "join", url, "-", "--data", str(folder))
    return subprocess.run(command, input=token, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603


def ask(url, credential, method="GET", target="/agent/v1/feed", body=b"", **trust):
    parts = urlsplit(url)
    header = sign_request(credential.private_key, credential.host, method, target, body, int(time.time()) + 60)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=10, **trust)
    connection.request(method, target, body=body or None, headers={"Authorization": header})
    return connection.getresponse()


def applied(admin, host):
    hosts = admin.get("/admin/v1/hosts").raise_for_status().json()["hosts"]
    return next(one["applied"] for one in hosts if one["host"] == host)


def serial(url, pem):
    parts = urlsplit(url)
    with ssl.create_default_context(cadata=pem).wrap_socket(
        socket.create_connection((parts.hostname, parts.port)), server_hostname=parts.hostname
    ) as connection:
        return connection.getpeercert()["serialNumber"]


def test_the_official_sdk_works_over_https_and_only_with_the_ca(folder, server, admin, monkeypatch):
    key = admin.post("/admin/v1/keys", json={"name": "tls"}).json()
    client = Client(key["id"], key["secret"], url=f"{server[1]}/v2")
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        client.list_security_groups()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority_of(folder).certificate))
    assert [group["name"] for group in client.list_security_groups()["security-groups"]] == ["default"]
    created = client.create_security_group(name="over-tls")
    assert client.wait(created["id"])["state"] == "success"
    assert client.list_zones()["zones"][0]["api-endpoint"].startswith(server[1])


def test_a_shell_with_the_lines_of_env_reaches_a_server_that_listens_everywhere(tmp_path, capsys):
    data = tmp_path / "data"
    authority_of(data).make(["localhost"], datetime.now(UTC))
    with started(data, "--listen", "0.0.0.0:0"):
        assert run(["env", "--data", str(data)]) == 0
        lines = capsys.readouterr().out
        assert "0.0.0.0" not in lines  # noqa: S104  which nobody can call
        code = (
            "import os; from exoscale.api.v2 import Client; e = os.environ;"
            "c = Client(e['EXOSCALE_API_KEY'], e['EXOSCALE_API_SECRET'], url=e['EXOSCALE_API_ENDPOINT']);"
            "print(c.list_security_groups()['security-groups'][0]['name'])"
        )
        script = f'{lines}\nexec "$0" -c "$1"'
        shell = ("bash", "-c", script, sys.executable, code)
        asked = subprocess.run(shell, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603  our own
    assert asked.stdout == "default\n", asked.stderr
    variables = dict(line.removeprefix("export ").split("=", 1) for line in lines.splitlines())
    assert variables["EXOSCALE_API_ENDPOINT"].startswith("https://localhost:")
    assert variables["SSL_CERT_FILE"] == variables["REQUESTS_CA_BUNDLE"]
    trusted = ssl.create_default_context(cafile=variables["SSL_CERT_FILE"])
    assert trusted.cert_store_stats()["x509_ca"] > 1, "others are trusted no more"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_nothing_older_than_tls_1_2_is_spoken(folder, server, version):
    context = ssl.create_default_context(cafile=authority_of(folder).certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")  # or this side would refuse before it asks
    context.minimum_version = context.maximum_version = version
    parts = urlsplit(server[1])
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as opened:
        if version is not ssl.TLSVersion.TLSv1_1:
            with context.wrap_socket(opened, server_hostname=parts.hostname) as secured:
                assert secured.version() == version.name.replace("_", ".")
            return
        with pytest.raises(OSError) as refused:  # noqa: PT011  an alert, or the connection's end
            context.wrap_socket(opened, server_hostname=parts.hostname)
    if "NO_PROTOCOLS_AVAILABLE" in str(refused.value):
        pytest.skip("this machine's OpenSSL cannot ask for TLS 1.1")


def test_a_server_that_is_not_there_is_named(admin, tmp_path):
    gone = join("https://127.0.0.1:1", token_of(admin, "h7"), tmp_path)
    said = "ringfence: join the server at https://127.0.0.1:1: Connection refused ('127.0.0.1', 1)\n"
    assert (gone.returncode, gone.stderr) == (1, said)


def test_the_doctor_of_a_host_that_joined_looks_at_its_server(server, admin, tmp_path):
    assert join(server[1], token_of(admin, "h6"), tmp_path).returncode == 0
    credential = load_credential(tmp_path, {})
    assert {one.about: one.state for one in examine_server(credential, ask_server)} == {
        "server": State.OK,
        "host": State.OK,
        "certificate": State.OK,
        "clock": State.OK,
    }
    assert join(server[1], token_of(admin, "h6"), tmp_path / "again").returncode == 0
    assert {one.about: one.state for one in examine_server(credential, ask_server)}["host"] is State.PROBLEM
    elsewhere = replace(credential, server=server[1].replace("127.0.0.1", "localhost"))
    [mismatch] = examine_server(elsewhere, ask_server)
    assert (mismatch.about, mismatch.state) == ("certificate", State.PROBLEM)
    assert "not valid for 'localhost'" in mismatch.text
    [gone] = examine_server(replace(credential, server="https://127.0.0.1:1"), ask_server)
    assert (gone.about, gone.state) == ("server", State.PROBLEM)
    [plain] = examine_server(replace(credential, server="unix:/run/rf.sock"), ask_server)
    assert plain.state is State.SKIPPED


def test_a_host_joins_from_its_own_process_sees_its_own_and_is_revoked_at_once(server, admin, tmp_path):
    token = token_of(admin, "h1")
    joined = join(server[1], token, tmp_path / "h1")
    assert (joined.returncode, joined.stdout) == (0, ""), joined.stderr
    assert token.split(":")[1] not in joined.stderr
    credential = load_credential(tmp_path / "h1", {})
    assert (credential.host, credential.server) == ("h1", server[1])
    assert fingerprint_of(credential.ca) == parse_token(token).fingerprint
    assert stat.S_IMODE((tmp_path / "h1" / "credential").stat().st_mode) == 0o600
    trust = {"context": ssl.create_default_context(cadata=credential.ca)}
    assert ask(server[1], credential, "PUT", "/agent/v1/inventory", b"{}", **trust).status == 400  # known, and wrong
    again = join(server[1], token, tmp_path / "other")
    wrong = join(server[1], token.replace("h1:", "h9:"), tmp_path / "wrong")
    assert (again.returncode, wrong.returncode) == (1, 1)
    assert again.stderr == wrong.stderr
    assert "it was used, has expired, or was never made here" in again.stderr
    assert not (tmp_path / "other" / "credential").exists()
    admin.delete("/admin/v1/hosts/h1").raise_for_status()
    assert ask(server[1], credential, "PUT", "/agent/v1/inventory", b"{}", **trust).status == 401
    assert join(server[1], token, tmp_path / "h1").returncode == 1


def test_a_server_that_is_not_the_tokens_is_told_nothing(server, admin, tmp_path):
    token = parse_token(token_of(admin, "h2"))
    joined = join(server[1], f"h2:{token.secret}:{'0' * 64}", tmp_path / "h2")
    assert joined.returncode == 1
    assert "its CA is another; nothing was told to it" in joined.stderr
    assert join(server[1], token.text, tmp_path / "h2").returncode == 0  # it was not used


def test_a_port_without_tls_is_said_to_be_one(server, admin, tmp_path):
    joined = join(server[0].replace("http:", "https:"), token_of(admin, "h2"), tmp_path / "h2")
    assert (joined.returncode, "speaks no TLS" in joined.stderr) == (1, True), joined.stderr


def test_an_expired_token_is_refused_and_another_one_gives_a_host_another_key(server, admin, tmp_path):
    token = token_of(admin, "h3", ttl_s=1)
    spent_at = int(time.time()) + 1  # or before: its life began at a whole second
    wait_until(lambda: time.time() >= spent_at)
    assert join(server[1], token, tmp_path / "h3").returncode == 1
    assert join(server[1], token_of(admin, "h3"), tmp_path / "h3").returncode == 0
    first = load_credential(tmp_path / "h3", {})
    assert join(server[1], token_of(admin, "h3"), tmp_path / "h3").returncode == 0
    second = load_credential(tmp_path / "h3", {})
    assert first.private_key != second.private_key
    assert ask(server[0], first, "PUT", "/agent/v1/inventory", b"{}").status == 401
    assert ask(server[0], second, "PUT", "/agent/v1/inventory", b"{}").status == 400


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_kill_9_in_the_middle_of_a_join_and_the_same_command_ends_it(server, admin, tmp_path, lost):
    """The request, or its answer, never arrives; then the process is killed and started again."""
    host, folder = f"k-{lost}", tmp_path / "agent"
    token = token_of(admin, host)
    with socket.create_server(("127.0.0.1", 0)) as middle:
        url = f"http://127.0.0.1:{middle.getsockname()[1]}"
        process = subprocess.Popen((*PROGRAM, "agent", "join", url, token, "--data", str(folder)))  # noqa: S603
        connection, _ = middle.accept()
        with connection:
            request = b""
            while b"}" not in request:
                request += connection.recv(65536)
            if lost == "answer":
                parts = urlsplit(server[0])
                with socket.create_connection((parts.hostname, parts.port)) as onward:
                    onward.sendall(request)
                    assert b"204" in onward.recv(65536).split(b"\r\n")[0]
            process.kill()
            process.wait(10)
    assert not (folder / "credential").exists()
    ended = join(server[0], token, folder)
    assert ended.returncode == 0, ended.stderr
    assert ask(server[0], load_credential(folder, {}), "PUT", "/agent/v1/inventory", b"{}").status == 400


def test_a_new_certificate_is_taken_up_without_restart_and_a_broken_one_is_not(tmp_path):
    data = tmp_path / "data"
    authority = authority_of(data)
    authority.make(["127.0.0.1"], datetime.now(UTC))
    with serving(data) as (_, url):
        pem = authority.pem().decode()
        first = serial(url, pem)
        authority.make(["127.0.0.1"], datetime.now(UTC))
        wait_until(lambda: serial(url, pem) != first, 10)
        second = serial(url, pem)
        authority.server.certificate.write_text("broken")
        wait_until(lambda: "the certificate in use stays" in (tmp_path / "log").read_text(), 10)
        assert serial(url, pem) == second
        authority.make(["127.0.0.1"], datetime.now(UTC))
        wait_until(lambda: serial(url, pem) != second, 10)


def test_the_own_certificate_is_renewed_before_it_ends_under_the_same_names(tmp_path):
    authority, now = authority_of(tmp_path), datetime.now(UTC)
    authority.make(["rf.example", "192.0.2.1"], now)
    ends, ca = authority.ends(), authority.pem()
    assert not authority.renew(now + SERVER_LIFE - RENEWED_BEFORE_END - timedelta(hours=1))
    assert authority.renew(now + SERVER_LIFE - RENEWED_BEFORE_END + timedelta(hours=1))
    assert (authority.names(), authority.pem()) == (["rf.example", "192.0.2.1"], ca)
    assert authority.ends() > ends
    assert stat.S_IMODE((tmp_path / "tls" / "ca.key").stat().st_mode) == 0o400


def test_the_operators_own_certificate_is_served(tmp_path):
    authority = authority_of(tmp_path / "mine")
    authority.make(["127.0.0.1"], datetime.now(UTC))
    files = authority.server
    more = ("--tls-cert", str(files.certificate), "--tls-key", str(files.key))
    with serving(tmp_path / "data", *more) as (_, url), admin_client(tmp_path / "data") as admin:
        assert serial(url, authority.pem().decode())
        assert parse_token(token_of(admin, "h1")).fingerprint is None


def test_a_key_of_another_certificate_is_named(tmp_path):
    for name in ("a", "b"):
        authority_of(tmp_path / name).make(["a.example"], datetime.now(UTC))
    arguments = ["server", "--data", str(tmp_path / "c"), "--listen", "0.0.0.0:0"]
    arguments += ["--tls-cert", str(tmp_path / "a/tls/server.pem"), "--tls-key", str(tmp_path / "b/tls/server.key")]
    ended = subprocess.run((*PROGRAM, *arguments), capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    assert ended.returncode == 1
    assert "the key belongs to another certificate" in ended.stderr


def test_a_token_made_while_no_server_ran_is_good_when_one_does(tmp_path, capsys):
    data = tmp_path / "data"
    assert run(["server", "init", "--data", str(data), "--name", "127.0.0.1", "-o", "json"]) == 0
    assert '"names": [\n      "127.0.0.1"' in capsys.readouterr().out
    assert run(["host", "token", "h1", "--data", str(data), "-o", "env"]) == 0
    token = capsys.readouterr().out.strip().removeprefix("RINGFENCE_JOIN_TOKEN=").strip("'")
    for _ in range(2):
        with serving(data) as (_, url):
            joined = join(url, token, tmp_path / "agent")  # once more by the same key, also after a restart
            assert joined.returncode == 0, joined.stderr
            (tmp_path / "agent" / "credential").rename(tmp_path / "agent" / "credential.joining")


def test_an_option_before_the_verb_is_refused_and_not_lost(tmp_path):
    assert run(["server", "--data", str(tmp_path), "init"]) == 2
    assert not list(tmp_path.iterdir())


def test_a_join_that_ended_may_be_said_again_and_changes_nothing(server, admin, tmp_path):
    token = token_of(admin, "h9")
    asyncio.run(join_server(server[1], token, tmp_path))
    joined = (tmp_path / "credential").read_bytes()
    for left in (None, joined):  # the second: it was killed just before it removed this
        if left is not None:
            (tmp_path / "credential.joining").write_bytes(left)
            (tmp_path / "credential.joining").chmod(0o600)
        asyncio.run(join_server(server[1], token, tmp_path))
        assert (tmp_path / "credential").read_bytes() == joined
        assert not (tmp_path / "credential.joining").exists()
    asyncio.run(join_server(server[1], token_of(admin, "h9"), tmp_path))
    assert (tmp_path / "credential").read_bytes() != joined  # by another token, another key
    with pytest.raises(OperatorError, match="the token is not accepted"):
        asyncio.run(join_server(server[1], token, tmp_path))


def test_joining_mends_a_credential_that_was_damaged(server, admin, tmp_path):
    for name in ("credential", "credential.joining"):
        (tmp_path / name).write_bytes(b"RINGFENCE_HOST=h1\nRINGFENCE_HOST_K")  # a disk that was full, or broke
        (tmp_path / name).chmod(0o600)
    joined = join(server[1], token_of(admin, "h8"), tmp_path)
    assert joined.returncode == 0, joined.stderr
    assert load_credential(tmp_path, {}).host == "h8"
    assert not (tmp_path / "credential.joining").exists()


def test_a_folder_of_another_host_is_left_alone(server, admin, tmp_path):
    assert join(server[1], token_of(admin, "h4"), tmp_path / "a").returncode == 0
    refused = join(server[1], token_of(admin, "h5"), tmp_path / "a")
    assert refused.returncode == 1
    assert "is that of host h4" in refused.stderr


def test_what_is_no_token_is_not_shown(tmp_path):
    refused = join("https://127.0.0.1:1", "h1:notasecret", tmp_path)
    assert refused.returncode == 2
    assert "notasecret" not in refused.stderr
    with pytest.raises(OperatorError):
        load_credential(tmp_path, {})


def test_the_feed_of_a_joined_host_goes_over_tls_and_ends_with_its_key_and_with_the_server(tmp_path):
    folder = tmp_path / "data"
    authority_of(folder).make(["127.0.0.1"], datetime.now(UTC))
    with serving(folder) as (_, url), admin_client(folder) as admin:
        assert join(url, token_of(admin, "h5"), tmp_path / "h5").returncode == 0
        credential = load_credential(tmp_path / "h5", {})

        async def talk():
            async with open_server(url, credential, SystemClock()) as client, aclosing(client.feed()) as feed:
                offered = await anext(feed)
                await client.report(Report(offered.view.revision, None))
                await asyncio.to_thread(admin.delete, "/admin/v1/hosts/h5")
                return offered, [item async for item in feed]

        offered, rest = asyncio.run(talk())
        assert (offered.view.endpoints, rest) == ((), [])
        assert join(url, token_of(admin, "h6"), tmp_path / "h6").returncode == 0

        async def stay():
            async with (
                open_server(url, load_credential(tmp_path / "h6", {}), SystemClock()) as client,
                aclosing(client.feed()) as feed,
            ):
                await client.report(Report((await anext(feed)).view.revision, None))
                await asyncio.to_thread(wait_until, lambda: applied(admin, "h6") is not None)
                admin.close()
                leave.set()
                return [item async for item in feed]

        leave = threading.Event()
        staying = threading.Thread(target=lambda: left.append(asyncio.run(stay())))
        left = []
        staying.start()
        assert leave.wait(20)
    staying.join(10)
    assert left == [[]]
