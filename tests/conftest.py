"""How many examples Hypothesis tries: 150, or 5,000 with `--hypothesis-profile=long`."""

from hypothesis import settings

settings.register_profile("usual", max_examples=150)
settings.register_profile("long", max_examples=5000)
settings.load_profile("usual")
