"""The operators: thin shells over the core. Each describes how to open its stage under the one above."""
