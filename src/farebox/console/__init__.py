"""The console: pages for people, in the same process and off with a setting. Nothing of it is loaded until somebody
opens it."""
