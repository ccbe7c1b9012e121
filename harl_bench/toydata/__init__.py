"""Generated data in the true on-disk formats, so that every command can be tried and tested without
a download.
"""
