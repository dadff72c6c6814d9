"""What an operator may have set for the database, or put before it, and what the store makes of that."""

import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from select import select

import psycopg
import pytest

from desk import ORGANISATION
from places import postgres_place
from relay import Relay
from ringfence.policy.errors import OperatorError
from ringfence.policy.facts import GroupCreated, apply_facts
from ringfence.policy.model import Group
from ringfence.store import AuditLine, DatabaseFault, Decision, Lost, next_revision
from ringfence.store.database import Absent, Unreachable
from ringfence.store.migrate import load_migrations, migrate
from ringfence.store.postgresql import PostgresDatabase
from unit.store.test_store import creating, founded
from waiting import wait_until

SETTINGS = {
    "idle_in_transaction_session_timeout": "50ms",
    "statement_timeout": "50ms",
    "lock_timeout": "50ms",
    "idle_session_timeout": "50ms",  # since 14
    "transaction_timeout": "50ms",  # since 17
    "default_transaction_isolation": "serializable",
    "synchronous_commit": "off",
    "client_encoding": "latin1",
}
SLOW_S = 0.15  # three times as long as any of them allows
CHANGES = 6


@pytest.fixture
def url(postgres):
    """A database with settings that would cut us off in the middle of a change, or let it be lost."""
    url = postgres.database()
    with psycopg.connect(url, autocommit=True) as operator:
        known = {name for (name,) in operator.execute("SELECT name FROM pg_settings")}
        for name in SETTINGS.keys() & known:
            operator.execute(f"ALTER DATABASE {operator.info.dbname} SET {name} = '{SETTINGS[name]}'")
    return url


@pytest.fixture
def folders(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir(mode=0o700)
    return tmp_path / "a", tmp_path / "b"


def slowly_creating(name):
    """Keeps the lock, and who waits for it, for longer than the operator's settings allow."""

    def decide(snapshot):
        time.sleep(SLOW_S)
        facts = (GroupCreated(Group(type(ORGANISATION)(int=0x10000 + len(snapshot.groups)), ORGANISATION, name)),)
        after = apply_facts(snapshot, facts, revision=next_revision(snapshot))
        audit = AuditLine(ORGANISATION, 1000, "EXOtest", "CreateGroup", name)
        return Decision(None, facts=facts, after=after, audit=audit)

    return decide


def test_settings_of_an_operator_s_cut_no_change_off_and_lose_none(url, folders):
    one = founded(postgres_place(folders[0], url))
    shutil.copy(folders[0] / "secret.key", folders[1])
    other = postgres_place(folders[1], url).open()
    writing = [store.submit(slowly_creating(f"Ω-{n}")) for n in range(CHANGES) for store in (one, other)[n % 2 :][:1]]
    revisions = [future.result(30).snapshot.revision for future in writing]
    time.sleep(SLOW_S)  # idle, and still connected
    one.refresh().result(5)
    assert sorted(revisions) == [*range(2, CHANGES + 2)]
    assert {group.name for group in one.snapshot.groups.values()} == {"default", *(f"Ω-{n}" for n in range(CHANGES))}
    one.close()
    other.close()


def test_what_is_read_behind_the_lock_is_of_that_moment(url):
    first, second = PostgresDatabase(url), PostgresDatabase(url)
    with psycopg.connect(url, autocommit=True) as operator, ThreadPoolExecutor(1) as pool:
        operator.execute("CREATE TABLE journal (number bigint)")
        first.begin()
        waiting = pool.submit(second.begin)
        wait_until(lambda: operator.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (1,))
        first.write([("INSERT INTO journal (number) VALUES (?)", [(1,)])])
        first.commit()
        waiting.result(10)
        assert list(second.query("SELECT number FROM journal")) == [(1,)]
    first.close()
    second.close()


def test_a_question_is_answered_without_waiting_and_ends_with_its_connection(url):
    with closing(PostgresDatabase(url).question("SELECT 7")) as question:

        def answer():
            question.ask()
            return wait_until(question.hear)

        assert [answer(), answer()] == [7, 7]
        with psycopg.connect(url, autocommit=True) as operator:
            operator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        with pytest.raises(DatabaseFault):
            answer()


class LateEnd(Relay):
    """Holds back the end of an answer, once, when ``holds`` is set."""

    END = b"Z\0\0\0\5I"  # ReadyForQuery
    holds = False

    def release(self):
        self.client.sendall(self.END)

    def _answer(self, octets, server, client):
        if not self.holds or not octets.endswith(self.END):
            return True
        self._silenced.append(server)
        client.sendall(octets.removesuffix(self.END))
        self.client = client
        return False


def test_a_question_is_not_waited_for_when_the_end_of_its_answer_is_late(url, tmp_path):
    relay = LateEnd(tmp_path, url)
    with closing(relay), closing(PostgresDatabase(relay.url).question("SELECT 7")) as question:
        relay.holds = True
        question.ask()
        wait_until(lambda: select([question.fileno], [], [], 0)[0])
        with ThreadPoolExecutor(1) as pool:
            hearing = pool.submit(question.hear)
            try:
                assert hearing.result(5) is None
            finally:
                relay.release()
        assert wait_until(question.hear) == 7


def test_a_question_that_the_database_does_not_understand_is_refused(url):
    with pytest.raises(DatabaseFault, match="nowhere"):
        PostgresDatabase(url).question("SELECT * FROM nowhere")


def test_a_session_that_does_not_keep_what_was_set_is_refused(postgres, tmp_path):
    place = postgres_place(tmp_path, postgres.database())

    def without_settings(folder):
        database = place.open_database(folder)
        database._connection.execute("SET statement_timeout = 0")
        return database

    refused = r"a pooler \(PgBouncer\) takes a session's settings away: .* use another database"
    with pytest.raises(OperatorError, match=refused):
        place.open(without_settings)
    place.open().close()


def test_a_database_that_refuses_for_now_is_not_called_damaged(postgres, tmp_path):
    url = postgres.database()
    with psycopg.connect(url, autocommit=True) as connection:
        owner = f"owner_{connection.info.dbname}"
        connection.execute(f"CREATE ROLE {owner} LOGIN CONNECTION LIMIT 1")
    place = postgres_place(tmp_path, url.replace("ringfence@", f"{owner}@"))
    with pytest.raises(OperatorError, match=r"too many connections.*: mend that, then start anew"):
        place.open()


def test_a_server_that_still_runs_when_a_newer_one_changed_the_format_ends(postgres, tmp_path):
    place = postgres_place(tmp_path, postgres.database())
    store = founded(place)
    steps = load_migrations()
    with closing(place.open_database(tmp_path)) as database:
        migrate(database, {**steps, max(steps) + 1: "CREATE TABLE newer (number INTEGER PRIMARY KEY) STRICT;"})
    for _ in range(2):
        with pytest.raises(Lost, match="one of them runs another ringfence"):
            store.submit(creating("late")).result()
    store.close()
    assert place.rows("SELECT count(*) FROM security_group WHERE name = 'late'") == [(0,)]


@pytest.mark.parametrize("others", [0, 3], ids=["nobody wrote since", "others wrote since"])
def test_a_server_that_knows_more_than_the_database_ends(postgres, tmp_path, others):
    """As when it was restored behind its back, or a replica that lacked commits took its place."""
    place = postgres_place(tmp_path, postgres.database())
    store = founded(place)
    for name in ("kept", "lost"):
        store.submit(creating(name)).result()
    place.run("DELETE FROM journal WHERE number = (SELECT max(number) FROM journal)")
    for _ in range(others):
        place.run("INSERT INTO journal SELECT max(number) + 1, 'another', '[]' FROM journal")
    with pytest.raises(Lost, match="gone back to an earlier state"):
        store.refresh().result()
    with pytest.raises(Lost, match="gone back to an earlier state"):
        store.submit(creating("late")).result()
    store.close()
    assert place.rows("SELECT count(*) FROM security_group WHERE name = 'late'") == [(0,)]


def test_known_looking_news_of_a_database_that_was_set_back_do_not_put_off_that_it_is_noticed(postgres, tmp_path):
    """Another server goes on from the earlier state, so its news have numbers that this one has passed."""
    place = postgres_place(tmp_path, postgres.database())
    lost = threading.Event()
    with closing(founded(place)) as store, closing(place.open_database(tmp_path)) as database:
        for name in ("kept", "lost"):
            store.submit(creating(name)).result()
        store.follow(lambda _: None, lambda _: lost.set())
        listens = "SELECT 1 FROM pg_stat_activity WHERE query = 'LISTEN ringfence' AND datname = current_database()"
        wait_until(lambda: list(database.query(listens)))

        def notify():
            list(database.query("SELECT pg_notify('ringfence', '1 another')"))
            return lost.is_set()

        assert not notify()
        place.run("DELETE FROM journal WHERE number = (SELECT max(number) FROM journal)")
        wait_until(notify)


class _Answering:
    """Takes connections on a port of loopback, and answers whatever comes with these words, as PostgreSQL would."""

    def __init__(self, words):
        self.answer = _fatal(words) if words else b""
        self.listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def host(self):
        return f"127.0.0.1:{self.listening.getsockname()[1]}"

    def _run(self):
        with suppress(OSError):
            while True:
                client, _ = self.listening.accept()
                with client:
                    client.recv(4096)
                    client.sendall(self.answer)


def _fatal(words):
    fields = b"".join(kind + text.encode() + b"\0" for kind, text in ((b"S", "FATAL"), (b"C", "57P03"), (b"M", words)))
    return b"E" + (len(fields) + 5).to_bytes(4, "big") + fields + b"\0"


@pytest.mark.parametrize(
    ("words", "is_absent"),
    [
        (["the database system is starting up"], True),
        (["the database system is shutting down"], True),
        (["the database system is in recovery mode"], True),
        (["the database system is starting up", "refused"], True),
        (["refused", "refused"], True),
        (["the database system is not accepting connections"], False),  # a standby: the primary may be elsewhere
        (['password authentication failed for user "ringfence"'], False),
        ([""], False),  # the connection is closed
        (["refused", ""], False),
    ],
)
def test_a_database_is_absent_when_every_host_says_so(words, is_absent):
    with ExitStack() as stack:
        hosts = []
        for each in words:
            answering = _Answering(each)
            hosts.append(answering.host)
            if each == "refused":
                answering.listening.shutdown(socket.SHUT_RDWR)
                answering.listening.close()
            else:
                stack.callback(answering.listening.close)
        with pytest.raises(Unreachable) as refused:
            PostgresDatabase(f"postgresql://ringfence@{','.join(hosts)}/x?sslmode=disable&gssencmode=disable")
    assert isinstance(refused.value, Absent) == is_absent, refused.value
