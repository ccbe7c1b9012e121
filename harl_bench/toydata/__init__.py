"""Generated data in the true formats, so that every command can be tried without a download."""
