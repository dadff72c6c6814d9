"""When the inventory's file is read, and which ports stay under our care after it changed."""

from pathlib import Path

import pytest

from fake_doors import FakeFiles, FakeLinks
from ringfence.agent.cache import Cache, Memory
from ringfence.agent.inventory import declared_endpoints
from ringfence.agent.ports import Declared
from ringfence.policy.errors import OperatorError

FILE = Path("/etc/inventory.toml")
ONE = '[[instance]]\nname = "{0}"\n[[instance.interface]]\nname = "{0}"\naddresses = ["10.0.0.{1}"]\nmanaged = {2}\n'


def inventory(*names, managed="true"):
    parts = [ONE.format(name, number, managed) for number, name in enumerate(names, start=1)]
    return ('host = "h1"\n' + "".join(parts)).encode()


@pytest.fixture
def files():
    files = FakeFiles()
    files.replace(FILE, inventory("a", "b"))
    return files


@pytest.fixture
def links():
    return FakeLinks("a", "b")


@pytest.fixture
def declared(files, links):
    return _begun(files, links)


def _begun(files, links, held=()):
    begun = Declared(FILE, files=files, links=links, cache=Cache(files, Path("/data"), "h1"), memory=Memory())
    begun.begin(frozenset(held))
    return begun


def _poll(declared):
    return declared.note(declared.look())


def _read_again(declared):
    _poll(declared)
    return _poll(declared)


def test_an_untouched_file_is_not_read_again(declared):
    assert not _read_again(declared)


def test_a_file_is_read_when_it_stood_still_for_a_round(declared, files):
    files.replace(FILE, inventory("a"))
    assert not _poll(declared)
    files.replace(FILE, inventory("b"))  # still being written
    assert not _poll(declared)
    assert _poll(declared)
    assert declared.inventory.ports == {"b"}
    assert not _poll(declared)


def test_an_unreadable_file_changes_nothing_but_what_is_said(declared, files):
    files.replace(FILE, b"host")
    assert not _read_again(declared)
    assert "the last good one stays in force" in declared.problem
    assert declared.inventory.ports == {"a", "b"}
    files.replace(FILE, inventory("a"))
    assert _read_again(declared)
    assert declared.problem is None


def test_a_file_that_cannot_be_looked_at_is_told_and_read_as_soon_as_it_can(declared, files):
    files.broken.add(FILE)
    assert not _read_again(declared)
    assert declared.problem == f"read {FILE}: Input/output error; the last good one stays in force"
    files.broken.remove(FILE)  # and its stamp is as it was
    assert _poll(declared)
    assert declared.problem is None


def _deny(path):
    raise OperatorError(f"read {path}", "Permission denied")


def test_a_file_that_can_be_looked_at_and_not_read_is_read_as_soon_as_it_can(declared, files, monkeypatch):
    files.replace(FILE, inventory("a"))
    with monkeypatch.context() as patch:
        patch.setattr(files, "read", _deny)
        assert not _read_again(declared)
        assert "Permission denied; the last good one stays in force" in declared.problem
    assert _poll(declared)
    assert declared.inventory.ports == {"a"}


def test_a_port_that_is_no_longer_declared_stays_under_our_care(declared, files):
    files.replace(FILE, inventory("a"))
    assert _read_again(declared)
    assert declared.ports.patterns == ("a", "b")


def test_a_port_whose_link_is_gone_is_forgotten(declared, files, links):
    links.present.remove("b")
    files.replace(FILE, inventory("a"))
    assert _read_again(declared)
    assert declared.ports.patterns == ("a",)


def test_a_port_that_is_declared_unmanaged_is_given_free(declared, files):
    files.replace(FILE, inventory("a", "b", managed="false"))
    assert _read_again(declared)
    assert declared.ports.patterns == ()


def test_the_good_text_is_kept_once_for_a_start_without_the_file(declared, files, links):
    declared.keep()
    files.remove(FILE)
    begun = _begun(files, links)
    assert begun.inventory == declared.inventory
    assert "the last good one is in force" in begun.problem


def test_a_port_that_was_taken_out_before_the_start_stays_under_our_care(declared, files, links):
    declared.keep()
    files.replace(FILE, inventory("a"))
    assert _begun(files, links).ports.patterns == ("a", "b")


@pytest.mark.parametrize("kept", [None, b"damaged"])
def test_a_port_that_only_the_kernel_knows_stays_under_our_care(files, links, kept):
    files.replace(FILE, inventory("a"))
    if kept:
        files.replace(Path("/data/inventory.good.toml"), kept)
    assert _begun(files, links, held=["b", "gone"]).ports.patterns == ("a", "b")


def test_a_port_that_only_managed_named_before_the_start_is_given_free(files, links):
    files.replace(Path("/data/inventory.good.toml"), b'host = "h1"\nmanaged = ["b"]')
    files.replace(FILE, inventory("a"))
    assert _begun(files, links, held=["a", "b"]).ports.patterns == ("a",)


HOST = '[[instance]]\nname = "h1"\ninterface = "a"\naddresses = ["10.0.0.1"]\n'


def test_the_uplink_of_a_host_is_free_when_the_inventory_names_it_no_longer(files, links):
    """Closing it would shut the operator out; a port of an instance, which it may have had before, stays closed."""
    files.replace(FILE, b'host = "h1"\nkind = "self"\n' + HOST.encode())
    declared = _begun(files, links, held=("a", "b"))
    assert declared.ports.uplinks == declared_endpoints(declared.inventory)
    assert set(declared.ports.patterns) == {"a", "b"}
    files.replace(FILE, b'host = "h1"\nkind = "self"\n')
    assert _read_again(declared)
    assert declared.ports.patterns == ("b",)


def test_an_uplink_that_was_taken_out_while_the_agent_was_stopped_is_free_too(files, links):
    files.replace(FILE, b'host = "h1"\nkind = "self"\n' + HOST.encode())
    _begun(files, links).keep()
    files.replace(FILE, b'host = "h1"\nkind = "self"\n')
    assert _begun(files, links, held=("a", "b")).ports.patterns == ("b",)
