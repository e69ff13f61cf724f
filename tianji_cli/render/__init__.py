"""The presentation of results: text, tables, figures, one page. Computes nothing."""
