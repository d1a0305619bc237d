"""Ten sites learn the digits: what both sides of the comparison do, and Flower's part of it."""
