"""PURE: what a policy lets through, as exact sets of packets: questions, assertions, lint, plans, suggestions."""
