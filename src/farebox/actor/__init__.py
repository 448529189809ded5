"""Farebox as an Actor on the Apify platform: `python -m farebox.actor`."""
