"""Farebox in the place of Apify's platform: the run API (`/v2`), the runs behind it, and what they leave.

(Farebox as an Actor on Apify's own platform is `actor/`.)
"""
