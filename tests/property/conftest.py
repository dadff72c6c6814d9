"""How hard hypothesis tries: the same examples at every `make test`, new and more ones at `make test-full`."""

from hypothesis import HealthCheck, settings

from counts import FULL

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("quick", max_examples=40, deadline=None, derandomize=True, suppress_health_check=_SLOW)
settings.register_profile("thorough", max_examples=300, deadline=None, suppress_health_check=_SLOW)
settings.load_profile("thorough" if FULL else "quick")
