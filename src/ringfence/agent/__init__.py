"""The host side: follows the server's view of this host and makes the kernel enforce it, one atomic change at a time.

``service.run_agent`` runs it in the network namespace of the calling process, ``service.run_boot`` enforces what is
known before there is a network, ``join`` registers a host, ``examination`` is what ``doctor`` finds. It uses policy,
nft and wire, never control, store or api. Stopping the agent leaves the rules in force. This file imports nothing, so
that each use loads only the modules that it needs.
"""
