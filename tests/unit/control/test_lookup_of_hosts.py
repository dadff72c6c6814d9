"""Who names a host that is not there wants to see those that are."""

import pytest

from policies import snapshot
from ringfence.control.lookup import find_host
from ringfence.policy.errors import NotFound


def test_who_names_an_unknown_host_is_told_where_to_see_them():
    with pytest.raises(NotFound, match="there is no host nosuch: ringfence host status shows those that are there"):
        find_host(snapshot(), "nosuch")
