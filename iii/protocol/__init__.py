"""Bytes <-> messages. Pure: no asyncio, no clock, no operating system. `lines` needs only the standard library."""
