"""The figures: what each shows as data, its job files, how it is drawn, and the record of what was run for it."""
