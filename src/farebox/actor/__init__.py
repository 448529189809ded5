"""Farebox as an Actor on Apify's platform: `python -m farebox.actor`. "The platform" is always Apify's in here.

(Farebox in the place of that platform is `platform/`.)
"""
