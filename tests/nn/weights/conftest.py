"""Hypothesis without deadlines: the machine that runs the suite is shared, and nothing here is about time."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
