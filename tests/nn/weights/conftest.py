"""Hypothesis without deadlines, because the suite runs on shared machines and these tests do not measure time."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
