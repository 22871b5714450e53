"""Flows: functions whose steps the worker `flow` records, so that they go on where a dead process was.

`declaration` registers a function as a flow and runs its turns; `handle` has what the function gets as its first
argument. What was recorded before a turn comes with the call of the body, and recorded steps return at once; everything
else is a call of `flow::*`.
"""
