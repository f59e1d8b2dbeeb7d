"""The operators: thin shells over the core. Each gives a function that opens its stage under the one above."""
