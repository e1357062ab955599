"""The instruments: one file each, and nothing else knows a satellite."""
