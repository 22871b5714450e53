"""What holds for all tests: hypothesis judges values, and never how long a busy machine takes to try them."""

from hypothesis import HealthCheck, settings

settings.register_profile("iii", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("iii")
