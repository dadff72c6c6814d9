"""What imported rules say, in short words and packet by packet."""

from ringfence.policy.insight.address_axis import position, span_of
from ringfence.policy.insight.services import services_of
from ringfence.policy.model import Rule


def words_of(draft):
    """ "tcp/22 10.0.0.0/8": protocol, ports or type and code, and the peer."""
    what = draft.protocol.value
    if draft.start_port is not None:
        what += (
            f"/{draft.start_port}" if draft.start_port == draft.end_port else f"/{draft.start_port}-{draft.end_port}"
        )
    if draft.icmp is not None:
        what += f"/{draft.icmp.type}" if draft.icmp.any_code else f"/{draft.icmp.type}/{draft.icmp.code}"
    return f"{what} {getattr(draft.peer, 'text', None) or 'group ' + draft.peer.name}"


def lets_in(drafts, source, service):
    """Whether one of the rules allows the service, a place as in ``policy.services``, from the address."""
    return any(_allows(draft, source, service) for draft in drafts)


def _allows(draft, source, service):
    first, last = span_of(draft.peer.network)
    rule = Rule(
        None,
        draft.direction,
        draft.protocol,
        draft.peer,
        draft.start_port,
        draft.end_port,
        draft.icmp,
        draft.description,
    )
    return first <= position(source) <= last and service in services_of(rule, source.version)
