"""Pictures of a directory in several sizes."""
