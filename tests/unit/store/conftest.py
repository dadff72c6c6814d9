"""The store's tests run on both databases."""

import pytest

from places import KINDS, Place, postgres_place


@pytest.fixture(params=KINDS)
def new_place(request, tmp_path_factory):
    """Makes places for stores, each empty, all on one kind of database."""
    if request.param == "sqlite":
        return lambda: Place(tmp_path_factory.mktemp("store"))
    postgres = request.getfixturevalue("postgres")
    return lambda: postgres_place(tmp_path_factory.mktemp("store"), postgres.database())


@pytest.fixture
def place(new_place):
    return new_place()
