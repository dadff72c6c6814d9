"""Conntrack entries made by hand (ctnetlink NEW), so that tests can have flows with any mark and no traffic."""

import socket
from ipaddress import ip_address

from ringfence.agent.doors.netlink import NetlinkSocket
from ringfence.nft.netlink import F_ACK, F_CREATE, F_EXCL, F_REQUEST, pack, pack_message, pack_nested, pack_number

_NEW = 1 << 8 | 0
_TUPLE_ORIGINAL, _TUPLE_REPLY, _TIMEOUT, _MARK = 1, 2, 7, 8


def add_flow(mark: int, port: int, source: str = "192.0.2.1", destination: str = "192.0.2.2") -> None:
    """A UDP flow with this mark, in the namespace of the calling thread."""
    first, second = ip_address(source), ip_address(destination)
    payload = (
        pack_nested(_TUPLE_ORIGINAL, *_tuple(first, second, 40000, port))
        + pack_nested(_TUPLE_REPLY, *_tuple(second, first, port, 40000))
        + pack_number(_TIMEOUT, 600)
        + pack_number(_MARK, mark)
    )
    family = socket.AF_INET if first.version == 4 else socket.AF_INET6
    netlink = NetlinkSocket()
    answers = netlink.request(pack_message(_NEW, F_REQUEST | F_CREATE | F_EXCL | F_ACK, 1, payload, family=family))
    netlink.close()
    assert not answers.refusals, answers.refusals


def _tuple(source, destination, source_port, destination_port):
    places = (1, 2) if source.version == 4 else (3, 4)
    ports = pack(2, source_port.to_bytes(2, "big")) + pack(3, destination_port.to_bytes(2, "big"))
    yield pack_nested(1, pack(places[0], source.packed), pack(places[1], destination.packed))
    yield pack_nested(2, pack(1, bytes([socket.IPPROTO_UDP])), ports)
