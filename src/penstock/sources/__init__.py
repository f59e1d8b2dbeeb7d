"""Sources: where items come from, one outside system each."""
