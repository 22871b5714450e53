"""Who may do what, and what may be shown: rules, admission, kernel identity."""
