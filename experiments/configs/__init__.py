"""What is run: settings of a run, and the studies as lists of them."""
