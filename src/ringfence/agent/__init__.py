"""The host side: follows the server's view of this host and makes the kernel hold it, one atomic change at a time.

``service.run_agent`` runs it in the network namespace of the calling process, ``service.run_boot`` does what can be
done before there is a network, ``join`` makes a host known, ``examination`` is what ``doctor`` finds. It uses policy,
nft and wire, never control, store or api. Stopping it leaves the rules in force. Nothing is loaded here: who looks at
a credential needs no netlink, and who runs for months no examination.
"""
