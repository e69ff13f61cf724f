"""How results look: text, tables, figures, one page. Decides nothing, computes nothing."""
