"""PostgreSQL over a network: only over TLS, its certificate verified, with a password that no process list shows."""

import datetime as dt
from pathlib import Path

import psycopg
import pytest

from contract.test_server_process import server_process
from places import postgres_place
from postgres import SETTINGS, missing, running_postgres
from ringfence.api.authority import Authority
from ringfence.policy.errors import OperatorError

PASSWORD = "correct-horse"  # noqa: S105  of a server that lives for one test
NETWORK = ("listen_addresses=127.0.0.1", "ssl=on", "password_encryption=scram-sha-256")

pytestmark = pytest.mark.long


def authority_in(folder):
    made = Authority(folder)
    made.make(["localhost"], dt.datetime.now(dt.UTC))
    return made


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The URL of an empty database on a server that takes TLS and a password only, and its CA's certificate."""
    if why := missing():
        pytest.skip(why)
    authority = authority_in(tmp_path_factory.mktemp("tls"))
    with running_postgres() as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as operator:
            operator.execute(f"SET password_encryption = 'scram-sha-256'; ALTER ROLE ringfence PASSWORD '{PASSWORD}'")
        name = server.database().split("/")[3].partition("?")[0]
        server.stop()
        (server.folder / "data" / "pg_hba.conf").write_text(
            "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        )
        files = (f"ssl_cert_file={authority.server.certificate}", f"ssl_key_file={authority.server.key}")
        server.settings = (*SETTINGS[1:], *NETWORK, *files)
        server.start()
        yield f"postgresql://ringfence@localhost/{name}", authority.certificate


@pytest.fixture
def password(tmp_path, monkeypatch):
    """Puts a password where libpq finds it."""

    def put(word):
        file = tmp_path / "pgpass"
        file.write_text(f"localhost:5432:*:ringfence:{word}\n")
        file.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(file))

    return put


def test_a_server_keeps_its_rows_there_with_a_password_from_a_file(database, password, tmp_path):
    password(PASSWORD)
    verified = "{}?sslmode=verify-full&sslrootcert={}".format(*database)
    with server_process(tmp_path, "--database", verified) as (process, server):
        assert server.call("POST", "/security-group", b'{"name": "web"}').status == 200
        with psycopg.connect(verified) as operator:
            found = "FROM pg_stat_ssl NATURAL JOIN pg_stat_activity WHERE application_name = 'ringfence'"
            assert operator.execute(f"SELECT DISTINCT ssl {found}").fetchall() == [(True,)]
        assert PASSWORD not in Path(f"/proc/{process.pid}/cmdline").read_text()
    assert PASSWORD not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("word", "options", "why"),
    [
        ("wrong-horse", "sslmode=verify-full&sslrootcert={ca}", "password authentication failed"),
        (PASSWORD, "sslmode=verify-full&sslrootcert={other}", "certificate verify failed"),
        (PASSWORD, "sslmode=disable", "(no encryption|SSL off)"),
    ],
)
def test_what_is_wrong_on_the_way_there_is_said_without_the_password(database, password, tmp_path, word, options, why):
    password(word)
    url, ca = database
    other = authority_in(tmp_path / "other").certificate
    place = postgres_place(tmp_path, f"{url}?{options.format(ca=ca, other=other)}")
    with pytest.raises(OperatorError, match=why) as raised:
        place.open()
    assert word not in str(raised.value)


def test_without_a_password_it_is_said_where_one_is_looked_for(database, tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "absent"))
    place = postgres_place(tmp_path, "{}?sslmode=verify-full&sslrootcert={}".format(*database))
    with pytest.raises(OperatorError, match="no password supplied: export PGPASSFILE=FILE first"):
        place.open()
