"""Where a function runs. The window, its order and its accounting are the same everywhere (P12)."""
