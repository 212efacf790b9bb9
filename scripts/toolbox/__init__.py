"""What several of the command-line programs share."""
