"""Error rates with their uncertainty, and the tables, figures and report made from them."""
