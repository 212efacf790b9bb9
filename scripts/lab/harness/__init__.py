"""What starts our own programs to look at them: for the programs of the lab, and for the tests."""
