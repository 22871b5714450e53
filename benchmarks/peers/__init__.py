"""What a user would pick instead, each in a program of its own: the same call, the same loads, its best client.

The programs run in an environment that is made once, outside the tree, from the group `peers`. They import nothing of
ours and print one line of figures.
"""
