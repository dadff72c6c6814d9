"""PURE: other firewalls' rules -> a policy document that lets in exactly the same, or a refusal that names the line.

``iptables``, ``ufw`` and ``nftables`` read the chains of a packet filter, and ``chains`` finds out what they accept.
``aws`` and ``exoscale`` read security groups. No file is opened and no service is called.
"""
