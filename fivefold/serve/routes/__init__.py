"""The routes, by the family of clients that speak to them. Each file ends with its part of the table."""
