"""Rules: no await, no clock, no environment, no I/O."""
