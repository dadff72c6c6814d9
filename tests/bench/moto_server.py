"""moto's server, the mock of AWS that people test with: what its nearest operations cost it, by the same measure.

It needs the extra ``bench``; without it there is no such figure. It is looser than the API here: it verifies no
signature, keeps nothing on disk, and answers in XML.
"""

import contextlib
import importlib.util
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlencode

from bench.http_load import cpu_s
from waiting import wait_until

CALLS, LISTS, RULES = 100, 5, 30  # it takes 60 rules in a group
# moto finds the service and the region in it, and looks at nothing else.
_HEADERS = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/ec2/aws4_request, SignedHeaders=a, Signature=0",
    "Content-Type": "application/x-www-form-urlencoded",
}


def measure_moto(groups: int, rules: int) -> dict[str, float] | None:
    """CPU of a call in us, with so many groups, of which the one that is read has so many rules."""
    if importlib.util.find_spec("moto") is None:
        return None
    with _moto() as (pid, ask):

        def spent_us(count, **parameters):
            before_s = cpu_s(pid)
            for number in range(count):
                ask(**{name: str(value).format(number) for name, value in parameters.items()})
            return round((cpu_s(pid) - before_s) / count * 1e6)

        def rule(port):
            of = "IpPermissions.1."
            return {f"{of}IpProtocol": "tcp", f"{of}FromPort": port, f"{of}ToPort": port} | {
                f"{of}IpRanges.1.CidrIp": "192.0.2.0/24"
            }

        described = {"GroupDescription": "bench"}
        made = ask(Action="CreateSecurityGroup", GroupName="read", **described)
        group = re.search(r"<groupId>([^<]+)", made)[1]
        for port in range(1, rules + 1):
            ask(Action="AuthorizeSecurityGroupIngress", GroupId=group, **rule(port))
        for number in range(groups):
            ask(Action="CreateSecurityGroup", GroupName=f"group-{number}", **described)
        return {
            "describe a group, us": spent_us(CALLS, Action="DescribeSecurityGroups", **{"GroupId.1": group}),
            "describe all groups, us": spent_us(LISTS, Action="DescribeSecurityGroups"),
            "create a group, us": spent_us(CALLS, Action="CreateSecurityGroup", GroupName="new-{}", **described),
            "authorize ingress, us": spent_us(
                RULES, Action="AuthorizeSecurityGroupIngress", GroupId=group, **rule("10{:03}")
            ),
        }


def _answers(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


@contextmanager
def _moto():
    """Its process, and a function that asks one action of it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603  ours
        try:
            wait_until(lambda: _answers(port), timeout_s=60)

            def ask(**parameters):
                connection = HTTPConnection("127.0.0.1", port, timeout=60)  # it keeps none open
                connection.request("POST", "/", urlencode(parameters | {"Version": "2016-11-15"}), _HEADERS)
                answer = connection.getresponse()
                text = answer.read().decode()
                connection.close()
                assert answer.status == 200, text
                return text

            yield process.pid, ask
        finally:
            process.terminate()
