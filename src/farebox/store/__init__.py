"""Stores: adapters behind the ports Ledger, Directory and Books."""
