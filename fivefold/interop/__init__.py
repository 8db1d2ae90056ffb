"""Other libraries' classes on our backbone."""
