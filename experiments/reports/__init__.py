"""What is made from records: tables, figures, the page."""
