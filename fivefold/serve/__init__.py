"""The HTTP server: Jina's, OpenAI's and TEI's wire formats in front of one queue. docs/server.md says how to use it."""
