"""One self-contained HTML page from the JSON that the stages wrote."""
