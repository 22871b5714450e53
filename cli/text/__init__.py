"""What the command line prints: JSON, tables, waterfalls."""
