"""Any function over every row: where rows come from, what is called, where results go."""
