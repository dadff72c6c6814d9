"""PURE: what a policy lets through, as exact sets: questions, assertions, lint, plans, suggestions."""
