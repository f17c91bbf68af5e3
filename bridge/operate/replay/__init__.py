"""Going back: read what the topics still hold, by offsets, times and filters, and bring it somewhere."""
