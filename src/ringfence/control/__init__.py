"""Use cases: what a command does to the policy, which hosts that touches, and when it is done.

Decisions are pure functions of a snapshot; the store makes them durable; operations settle as hosts report; each host's
newest view waits in the feed. ``ControlPlane`` composes these and is all that the server's other rooms need. This room
knows no HTTP and no kernel.
"""
