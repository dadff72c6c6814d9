"""The host side: follows the server's view of this host and makes the kernel hold it, one atomic change at a time.

``run_agent`` runs it in the network namespace of the calling process, ``run_boot`` does what can be done before there
is a network; ``load_credential`` finds who this host is. It uses policy, nft and wire, never control, store or api.
Stopping it leaves the rules in force.
"""

from ringfence.agent.credential import HostCredential, load_credential
from ringfence.agent.join import join_server
from ringfence.agent.service import examine_host, run_agent, run_boot

__all__ = ["HostCredential", "examine_host", "join_server", "load_credential", "run_agent", "run_boot"]
