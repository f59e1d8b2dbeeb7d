"""The scheduler: bounded windows, scopes that own work, sources, outcomes. Knows no files, databases or terminals."""
