"""The console's picture of a fleet, made of the statuses of its sites. Must not know HTTP servers, files or torch."""
