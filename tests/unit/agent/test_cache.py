"""What a restarted agent finds: whole files of its own, or nothing."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from fake_doors import FakeFiles
from ringfence.agent.cache import Cache, Memory
from ringfence.policy.errors import OperatorError
from ringfence.wire.feed import FeedView
from views import GROUPS, endpoint, ingress, view

FOLDER = Path("/var/lib/ringfence")
VIEW = FeedView("e1", view(4, endpoint("web", GROUPS[0]), rules={GROUPS[0]: (ingress(80),)}))


def _cache(files, host="h1"):
    return Cache(files, FOLDER, host)


def test_an_empty_folder_remembers_nothing():
    cache = _cache(FakeFiles())
    assert (cache.load_view(), cache.load_inventory(), cache.load_memory()) == (None, None, Memory())


def test_what_was_saved_is_found_again():
    files = FakeFiles()
    _cache(files).save_view(VIEW)
    _cache(files).save_inventory(b"text")
    channel = frozenset({(ip_address("192.0.2.1"), 443), (ip_address("2001:db8::1"), 443)})
    _cache(files).save_memory(
        Memory(7, frozenset({"veth-b", "veth-a"}), channel, observed=False, life="1", seen=((4, "a"),))
    )
    found = _cache(files)
    assert found.load_view() == VIEW
    assert found.load_inventory() == b"text"
    assert found.load_memory() == Memory(
        7, frozenset({"veth-a", "veth-b"}), channel, observed=False, life="1", seen=((4, "a"),)
    )


def test_any_flipped_or_lost_octet_of_the_view_is_noticed():
    files = FakeFiles()
    _cache(files).save_view(VIEW)
    ((path, content),) = files.contents.items()
    for at in range(len(content)):
        for damaged in (content[:at], content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]):
            files.contents[path] = damaged
            with pytest.raises(OperatorError, match="not used"):
                _cache(files).load_view()


def test_another_hosts_view_is_not_used():
    files = FakeFiles()
    _cache(files, "h2").save_view(VIEW)
    with pytest.raises(OperatorError, match="another host"):
        _cache(files).load_view()


@pytest.mark.parametrize("change", [('"format":1', '"format":2'), ("8443", "0"), ("8443", "99999"), ("192.0.2.1", "x")])
def test_a_memory_of_another_version_or_with_what_no_rule_can_hold_is_not_used(change):
    files = FakeFiles()
    _cache(files).save_memory(Memory(7, frozenset(), frozenset({(ip_address("192.0.2.1"), 8443)})))
    files.replace(FOLDER / "memory.json", files.read(FOLDER / "memory.json").replace(*map(str.encode, change)))
    assert _cache(files).load_memory() == Memory()


def test_a_damaged_memory_is_only_a_lost_hint_and_told(caplog):
    files = FakeFiles()
    assert _cache(files).load_memory() == Memory()
    assert not caplog.records, "a new host has none"
    for content in (b"", b'{"format":1,"block":"x"'):
        files.replace(FOLDER / "memory.json", content)
        assert _cache(files).load_memory() == Memory()
    files.broken.add(FOLDER / "memory.json")
    assert _cache(files).load_memory() == Memory()
    assert [record.getMessage().count("/var/lib/ringfence/memory.json") for record in caplog.records] == [1, 1, 1]


def test_an_inventory_that_did_not_change_is_not_written_again():
    files = FakeFiles()
    _cache(files).save_inventory(b"text")
    before = files.stamp(FOLDER / "inventory.good.toml")
    _cache(files).save_inventory(b"text")
    assert files.stamp(FOLDER / "inventory.good.toml") == before
