"""Rules without I/O, clock or randomness: time comes in as an argument, bytes go in and come out."""
