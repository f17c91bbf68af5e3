"""What ``make bench`` is made of: contestants, the load, what is measured, tables and pictures."""
