"""PURE: other firewalls' rules -> a policy document that lets in exactly the same, or a refusal that names the line.

``chains`` walks the chains of a packet filter and says what they accept; ``iptables``, ``ufw`` and ``nftables`` read
them. ``aws`` and ``exoscale`` read security groups. It opens no file and asks nobody.
"""
