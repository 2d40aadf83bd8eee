"""Implement the commands of `minires`. cli.py parses the command line and calls them."""
