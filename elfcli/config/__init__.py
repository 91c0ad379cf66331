"""Settings: the schema, reading and merging their sources, checks, and writing them as files."""
