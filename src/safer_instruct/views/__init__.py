"""What commands print: a module for each, on what all of them share in `terminal.py`."""
