"""What PDT costs: time, memory, compiling, accuracy."""
