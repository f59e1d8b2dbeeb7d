"""Sinks: where results go, one outside system each."""
