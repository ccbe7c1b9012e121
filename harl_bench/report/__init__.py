"""From run folders and published numbers to tables, plots and one page. Never imports torch."""
