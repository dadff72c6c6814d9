"""ringfence: cloud-grade security groups for your own Linux machines.

The rooms and which way imports go are drawn in ARCHITECTURE.md; start there.
"""

__version__ = "0.1.0"
