"""The journal in files of SQLite: the one room of durable runs that knows apsw."""
