"""What a running engine shows: the screen, the log files, and the display that feeds both."""
