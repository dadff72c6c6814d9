"""Throw-away networks of namespaces, real packets through them, and the demo that is built of both.

For the demo and the tests. Needs no root: everything happens in a user namespace of its own.
"""
