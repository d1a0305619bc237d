"""The same models behind four servers on one machine, asked by one client in turn."""
