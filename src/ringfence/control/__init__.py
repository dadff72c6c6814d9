"""Use cases: what a command does to the policy, which hosts that touches, and when it is done.

Decisions are pure functions of a snapshot; the store makes them durable; operations settle as hosts report; the feed
sends each host its newest view. ``ControlPlane`` composes these, and is all that the API and the command line need. It
knows no HTTP and no kernel.
"""
