"""`iii types`: what the functions of a running project take and give, as typed Python and TypeScript."""
