"""The commands of the command line, one module each; cli.py imports a module only when its command runs."""
