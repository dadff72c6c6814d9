"""The messages of nf_tables: their types, the requests for what the kernel holds, and the answers to those.

Pure: numbers and names in, octets out, and back. Layout: linux/netfilter/nf_tables.h (enum nf_tables_msg_types).
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from ringfence.nft.netlink import (
    F_ACK,
    F_DUMP,
    F_REQUEST,
    NFPROTO_BRIDGE,
    NFPROTO_INET,
    SUBSYSTEM_NFTABLES,
    Attributes,
    pack_message,
    pack_text,
    parse,
    parse_list,
    parse_messages,
    text_of,
)
from ringfence.policy.program.names import TableFamily

TABLE: Final = "ringfence"
PROTOCOL_FAMILY: Final = {TableFamily.INET: NFPROTO_INET, TableFamily.BRIDGE: NFPROTO_BRIDGE}

NEW_TABLE, GET_TABLE, DELETE_TABLE = 0, 1, 2
NEW_CHAIN, GET_CHAIN, DELETE_CHAIN = 3, 4, 5
NEW_RULE, GET_RULE, DELETE_RULE = 6, 7, 8
NEW_SET, GET_SET, DELETE_SET = 9, 10, 11
NEW_ELEMENTS, GET_ELEMENTS, DELETE_ELEMENTS = 12, 13, 14
NEW_GENERATION, GET_GENERATION = 15, 16
NEW_OBJECT, GET_OBJECT, DELETE_OBJECT = 18, 19, 20
DESTROY_TABLE, DESTROY_CHAIN, DESTROY_RULE, DESTROY_SET, DESTROY_ELEMENTS, DESTROY_OBJECT = 26, 27, 28, 29, 30, 31
OBJECT_COUNTER: Final = 1  # type of an object: a named counter


def message_type(type_: int) -> int:
    """The netlink type of a message of nf_tables."""
    return SUBSYSTEM_NFTABLES << 8 | type_


def request_dump(type_: int, family: int, payload: bytes = b"") -> bytes:
    """The request for all objects of a kind (``GET_``) in tables of a protocol family, narrowed by ``payload``."""
    return pack_message(message_type(type_), F_REQUEST | F_DUMP, 1, payload, family=family)


def request_one(type_: int, table: TableFamily, payload: bytes) -> bytes:
    """The request for the one object of our table that ``payload`` names."""
    whole = pack_text(1, TABLE) + payload
    return pack_message(message_type(type_), F_REQUEST | F_ACK, 1, whole, family=PROTOCOL_FAMILY[table])


def request_named(type_: int, table: TableFamily, name: str) -> bytes:
    """The request for the lines or elements of one chain or set of our table."""
    return request_dump(type_, PROTOCOL_FAMILY[table], pack_text(1, TABLE) + pack_text(2, name))


def request_generation() -> bytes:
    """Asks for the kernel's count of transactions in this network namespace."""
    return pack_message(message_type(GET_GENERATION), F_REQUEST | F_ACK, 1, b"", family=NFPROTO_INET)


def answers_in(blob: bytes, type_: int) -> list[Attributes]:
    """The attributes of every message of that type (``NEW_``) in an answer, which is one or several datagrams."""
    wanted = message_type(type_)
    return [parse(message.payload) for message in parse_messages(blob) if message.type == wanted]


def expressions_in(blob: bytes) -> Iterator[tuple[str, Attributes]]:
    """Name and attributes of each expression in a list of them, as a rule has one."""
    return (_expression(element) for _, element in parse_list(blob))


@lru_cache(maxsize=4096)  # the same few expressions are in most lines
def _expression(element: bytes) -> tuple[str, Attributes]:
    attributes = parse(element)
    return text_of(attributes[1]), parse(attributes.get(2, b""))
