"""Documents: files are read, cut into chunks, embedded and stored in an index that can be searched."""
