"""``report.json`` for people: a page of its own, a table for a pull request, and what became worse since another."""
