"""ufw's own files: what they let in, and what becomes of everything else."""

import pytest

from importing import words_of
from ringfence.policy.errors import Invalid
from ringfence.wire.imports.chains import Leave
from ringfence.wire.imports.iptables import Wanted, accepted_by_tables
from ringfence.wire.imports.ufw import read_ufw

DEFAULTS = 'IPV6=yes\nDEFAULT_INPUT_POLICY="%s"\nDEFAULT_OUTPUT_POLICY="ACCEPT"\n'
BEFORE = """\
*filter
:ufw-before-input - [0:0]
:ufw-not-local - [0:0]
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j ufw-logging-deny
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp --icmp-type echo-request -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j ufw-logging-deny
-A ufw-not-local -j DROP
COMMIT
"""
USER = """\
*filter
:ufw-user-input - [0:0]
:ufw-user-limit - [0:0]
### RULES ###

### tuple ### allow tcp 22 0.0.0.0/0 any 10.0.0.0/8 in
-A ufw-user-input -p tcp --dport 22 -s 10.0.0.0/8 -j ACCEPT

### tuple ### deny any any 0.0.0.0/0 any 192.0.2.0/24 in
-A ufw-user-input -s 192.0.2.0/24 -j DROP
{more}
### END RULES ###
-A ufw-user-limit -m limit --limit 3/minute -j LOG --log-prefix "[UFW LIMIT BLOCK] "
-A ufw-user-limit -j REJECT
COMMIT
"""
AFTER = """\
*filter
:ufw-after-input - [0:0]
-A ufw-after-input -p udp --dport 137 -j ufw-skip-to-policy-input
COMMIT
"""


def _imported(more="", policy="DROP", **without):
    files = {"before.rules": BEFORE, "user.rules": USER.replace("{more}", more), "after.rules": AFTER}
    files["default/ufw"] = DEFAULTS % policy
    for name in without.get("without", ()):
        del files[name]
    wanted = Wanted("ufw", 4)
    return accepted_by_tables(read_ufw(files, wanted), wanted, Leave(), input_only=False)


def test_its_own_chains_come_first_and_the_users_rules_after_them():
    assert [words_of(rule) for rule in _imported().rules] == ["icmp/8 0.0.0.0/0", "tcp/22 10.0.0.0/8"]


def test_an_open_default_lets_in_what_no_rule_denies():
    found = [words_of(rule) for rule in _imported(policy="ACCEPT").rules]
    assert "all 128.0.0.0/2" in found
    assert not [one for one in found if "192.0.2." in one]


def test_limit_is_refused_with_file_and_line():
    limit = (
        "-A ufw-user-input -p tcp --dport 23 -m conntrack --ctstate NEW -m recent --set\n"
        "-A ufw-user-input -p tcp --dport 23 -m recent --update --seconds 30 -j ufw-user-limit\n"
    )
    with pytest.raises(Invalid, match=r"^ufw/user.rules, line 12: it counts connections"):
        _imported(limit)


@pytest.mark.parametrize("name", ["before.rules", "user.rules", "default/ufw"])
def test_a_file_that_is_missing_is_named(name):
    with pytest.raises(Invalid, match=name):
        _imported(without=[name])
