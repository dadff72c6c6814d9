"""PURE: what a policy means: its values, resolution for a host, verdict, and the abstract program a kernel shall run.

It knows no bytes, no JSON, no clock and no I/O. Every other package may import it; it imports none of them.
"""
