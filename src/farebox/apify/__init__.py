"""The Apify platform, from inside an Actor run."""
