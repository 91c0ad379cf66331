"""One thin module per command: reads the options, calls the library, prints the result."""
