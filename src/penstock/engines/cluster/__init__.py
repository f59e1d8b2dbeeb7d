"""Engines whose workers are on a cluster."""
