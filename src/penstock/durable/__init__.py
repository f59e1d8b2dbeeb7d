"""Durable runs: killed at any instant and started again, they go on where they were."""
