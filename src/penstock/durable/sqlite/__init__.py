"""The journal, and what stands beside it, in files of SQLite: the one room of durable runs that knows apsw."""
