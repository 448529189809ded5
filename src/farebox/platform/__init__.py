"""Farebox as Apify's platform: the run API (`/v2`), the runs behind it, and what they leave."""
