"""Journals in a PostgreSQL database, and the connections to it."""
