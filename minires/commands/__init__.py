"""What each command of `minires` does; cli.py reads the command line and calls them."""
