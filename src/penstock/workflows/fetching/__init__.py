"""Fetches many URLs into one record a key: `penstock fetch`."""
