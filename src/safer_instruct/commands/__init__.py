"""What can be typed: a function for each command, which parses, calls and prints; `cli.py` lists them.

Heavy modules are imported inside the functions: `--help` and a mistyped option must answer at once.
"""
