"""What a fleet decides: which sites are in the federation and who exchanges with whom. Pure: no I/O and no clock."""
